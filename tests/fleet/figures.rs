//! The figures of several `serve` processes on a real server, printed; what a slow machine cannot change
//! is asserted.
//!
//! `BREAKERBOX_FLEET_PROCESSES` (3) and `BREAKERBOX_FLEET_PERIODS` (10) set the number of processes and of
//! half-open periods; for the figures in docs/fleet.md, 8 and 100.

#![expect(clippy::print_stderr, reason = "the figures of the test")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::measured::setting;
use crate::processes::{Sidecar, Upstream};
use crate::server::{NatsServer, PATIENCE};

const MS: Duration = Duration::from_millis(1);
/// Heartbeats a second of each process.
const HEARTBEATS: f64 = 2.0;
/// Number of dependencies that are never called.
const IDLE: usize = 20;

/// A sidecar with an upstream of its own, as behind a network of its own.
struct Process {
    sidecar: Sidecar,
    upstream: Upstream,
    /// Id of the last event that was read.
    seen: u64,
}

/// The calls of one process: answered, failed at the dependency, refused.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    good: u64,
    failed: u64,
    refused: u64,
}

impl Process {
    async fn start(server: &NatsServer, index: usize) -> Self {
        let upstream = Upstream::start().await;
        let url = upstream.address;
        // Sections may follow those of the fleet.
        let idle = (0..IDLE).map(|number| {
            format!("[dependencies.idle_{number}]\nkind = \"http\"\nurl = \"http://{url}\"\n")
        });
        let idle: String = idle.collect();
        let sidecar = Sidecar::start(&format!("p{index}"), &server.url(), &upstream, &idle);
        Self {
            sidecar,
            upstream,
            seen: 0,
        }
    }

    async fn calls(&self, until: impl Fn() -> bool) -> Answers {
        let mut answers = Answers::default();
        while !until() {
            match self.sidecar.call().await {
                200 => answers.good += 1,
                500 => answers.failed += 1,
                _ => answers.refused += 1,
            }
            tokio::time::sleep(3 * MS).await;
        }
        answers
    }

    /// Reads the transitions since the last reading: their states, and their times in milliseconds.
    async fn transitions(&mut self) -> Vec<(String, i64)> {
        let path = format!(
            "/api/events?since={}&kind=transition&dependency=web",
            self.seen
        );
        let page = self.sidecar.get(&path).await;
        self.seen = page["last_id"].as_u64().unwrap();
        let events = page["events"].as_array().unwrap().iter();
        let moves = events.map(|event| {
            let at: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
            let to = event["details"]["to"].as_str().unwrap();
            (to.to_owned(), at.as_millisecond())
        });
        moves.collect()
    }

    async fn state(&self) -> Value {
        self.sidecar.get("/api/dependencies/web").await["state"].clone()
    }

    /// Messages that it has sent to the board.
    async fn sent(&self) -> f64 {
        let metrics = self.sidecar.text("/metrics").await;
        let name = "breakerbox_fleet_messages_total{direction=\"out\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    }
}

async fn traffic(all: &[Process], span: Duration) -> Vec<Answers> {
    let end = Instant::now() + span;
    let each = all.iter().map(|one| one.calls(|| Instant::now() > end));
    futures_util::future::join_all(each).await
}

/// Lets all call until each breaker is in this state.
async fn until_all(all: &[Process], wanted: &str) {
    let latest = Instant::now() + PATIENCE;
    loop {
        traffic(all, 50 * MS).await;
        let mut found = true;
        for one in all {
            found &= one.state().await == wanted;
        }
        if found {
            return;
        }
        assert!(Instant::now() < latest, "not all are {wanted}");
    }
}

fn down(all: &[Process], is_down: bool) {
    for one in all {
        one.upstream.is_down.store(is_down, Ordering::Relaxed);
    }
}

async fn sent(all: &[Process]) -> f64 {
    let mut sum = 0.0;
    for one in all {
        sum += one.sent().await;
    }
    sum
}

fn requests(all: &[Process]) -> u64 {
    let each = all
        .iter()
        .map(|one| one.upstream.requests.load(Ordering::Relaxed));
    each.sum()
}

async fn messages(all: &[Process]) {
    let span = Duration::from_secs(4);
    let before = sent(all).await;
    tokio::time::sleep(span).await;
    let rest = sent(all).await - before;
    let answers = traffic(all, span).await;
    let busy = sent(all).await - before - rest;
    let calls: u64 = answers.iter().map(|one| one.good).sum();
    let expected = HEARTBEATS * span.as_secs_f64() * all.len() as f64;
    let more = busy - rest;
    eprintln!(
        "messages: {rest} sent in {span:?} at rest with {} dependencies (heartbeats alone: {expected}), {busy} \
         beside {calls} calls: {:.4} a call",
        IDLE + 1,
        more / calls as f64
    );
    assert!((rest - expected).abs() <= all.len() as f64 * 2.0, "{rest}");
    assert!(
        more.abs() <= all.len() as f64 * 2.0,
        "{more} for {calls} calls"
    );
}

/// Outages of all: how long after the first one each opens.
async fn trips(all: &mut [Process], rounds: u64) {
    let mut later = Vec::new();
    for _ in 0..rounds {
        for one in &mut *all {
            one.transitions().await;
        }
        down(all, true);
        traffic(all, 500 * MS).await;
        let mut opened = Vec::new();
        for one in &mut *all {
            let moves = one.transitions().await;
            let first = moves.iter().find(|(to, _)| to == "open");
            opened.extend(first.map(|(_, at)| *at));
        }
        assert_eq!(opened.len(), all.len(), "each has opened");
        let first = *opened.iter().min().unwrap();
        later.extend(
            opened
                .iter()
                .map(|at| at - first)
                .filter(|later| *later > 0),
        );
        down(all, false);
        until_all(all, "closed").await;
        // The suspicion after a verdict lasts for one `recovery_timeout`.
        traffic(all, 400 * MS).await;
    }
    later.sort_unstable();
    let of =
        |share: usize| later.get((later.len() * share / 100).min(later.len().saturating_sub(1)));
    eprintln!(
        "trips: {rounds} outages, the others open after the first one in ms: p50 {:?}, p99 {:?}, most {:?}",
        of(50),
        of(99),
        later.last()
    );
}

/// An outage of many half-open periods: one probe in each.
async fn probes(all: &mut [Process], periods: u64) {
    down(all, true);
    until_all(all, "open").await;
    traffic(all, 200 * MS).await;
    for one in &mut *all {
        one.transitions().await;
    }
    let before = requests(all);
    let mut half_open = 0;
    let latest = Instant::now() + Duration::from_secs(2 * periods) + PATIENCE;
    while half_open < periods {
        traffic(all, 500 * MS).await;
        for one in &mut *all {
            let moves = one.transitions().await;
            half_open += moves.iter().filter(|(to, _)| to == "half_open").count() as u64;
        }
        assert!(Instant::now() < latest, "{half_open} of {periods} periods");
    }
    let probes = requests(all) - before;
    eprintln!(
        "probes: {probes} in {half_open} half-open periods of {} processes",
        all.len()
    );
    // One may be under way at each end.
    assert!(probes.abs_diff(half_open) <= 1, "{probes} in {half_open}");
    down(all, false);
    until_all(all, "closed").await;
    traffic(all, 400 * MS).await;
}

/// One broken network, with this share of random errors everywhere, in thousandths.
async fn broken(all: &[Process], errors: u64, span: Duration) -> f64 {
    for one in all {
        one.upstream.errors.store(errors, Ordering::Relaxed);
    }
    all[0].upstream.is_down.store(true, Ordering::Relaxed);
    let answers = traffic(all, span).await;
    down(all, false);
    for one in all {
        one.upstream.errors.store(0, Ordering::Relaxed);
    }
    let healthy = &answers[1..];
    let refused: u64 = healthy.iter().map(|one| one.refused).sum();
    let calls: u64 = healthy.iter().map(|one| one.good + one.failed).sum::<u64>() + refused;
    let share = refused as f64 / calls as f64 * 100.0;
    eprintln!(
        "one broken network, {} % random errors: {refused} of {calls} calls of the others refused, {share:.2} %; \
         its own {:?}",
        errors / 10,
        answers[0]
    );
    until_all(all, "closed").await;
    share
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_2_figures_of_several_processes() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let count = usize::try_from(setting("BREAKERBOX_FLEET_PROCESSES", 3)).unwrap();
    let periods = setting("BREAKERBOX_FLEET_PERIODS", 10);
    let mut all = Vec::new();
    for index in 0..count {
        all.push(Process::start(&server, index).await);
    }
    for one in &all {
        one.sidecar.knows(count).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    messages(&all).await;
    trips(&mut all, periods.div_ceil(4)).await;
    probes(&mut all, periods).await;
    let span = Duration::from_secs(periods.clamp(3, 15));
    let share = broken(&all, 0, span).await;
    assert!(share == 0.0, "{share}");
    broken(&all, 50, span).await;
}
