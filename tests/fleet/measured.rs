//! The figures of a fleet under load, printed; what a slow machine cannot change is asserted.
//!
//! `BREAKERBOX_FLEET_REPLICAS` (4) and `BREAKERBOX_FLEET_SECONDS` (3) set its size and the time of each
//! phase.

use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::policy::State;
use tokio::time::Instant;

use crate::replicas::{Replica, start, stop, traffic};
use crate::server::NatsServer;

const MS: Duration = Duration::from_millis(1);

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_2_figures_of_a_fleet_under_load() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let count = usize::try_from(setting("BREAKERBOX_FLEET_REPLICAS", 4)).unwrap();
    let span = Duration::from_secs(setting("BREAKERBOX_FLEET_SECONDS", 3));
    let replicas = start(&server, count, "").await;
    let target = &replicas[0].target;

    // At rest, and under load: heartbeats alone, whatever is called.
    let idle = messages(&replicas);
    tokio::time::sleep(span).await;
    let rest = messages(&replicas) - idle;
    let end = Instant::now() + span;
    let calls = traffic(&replicas, 2 * MS, || Instant::now() > end).await;
    let calls: usize = calls.iter().map(Vec::len).sum();
    let busy = messages(&replicas) - idle - rest;
    eprintln!("{count} replicas: {rest} messages in {span:?} at rest, {busy} beside {calls} calls");

    // An outage for all: how long until every busy one is open.
    target.is_down.store(true, Ordering::Relaxed);
    traffic(&replicas, 2 * MS, || all(&replicas, State::Open)).await;
    let mut opened: Vec<Duration> = replicas
        .iter()
        .map(|one| one.moves(State::Open)[0])
        .collect();
    opened.sort();
    let spread = opened[count - 1] - opened[0];
    eprintln!("all open {spread:?} after the first");

    // Probes: one in each half-open period.
    let before = target.calls.load(Ordering::Relaxed);
    let periods = || -> usize {
        replicas
            .iter()
            .map(|one| one.moves(State::HalfOpen).len())
            .sum()
    };
    let (old, end) = (periods(), Instant::now() + span);
    target.most.store(0, Ordering::Relaxed);
    let calls = traffic(&replicas, 2 * MS, || Instant::now() > end).await;
    let probes = target.calls.load(Ordering::Relaxed) - before;
    let slowest = calls
        .iter()
        .flatten()
        .map(|(_, took)| *took)
        .max()
        .unwrap_or_default();
    let most = target.most.load(Ordering::Relaxed);
    eprintln!(
        "{probes} probes in {} half-open periods, {most} at most at once; slowest call {slowest:?}",
        periods() - old
    );
    target.is_down.store(false, Ordering::Relaxed);
    traffic(&replicas, 2 * MS, || all(&replicas, State::Closed)).await;

    // One replica's broken network: the others refuse nothing.
    replicas[0].is_cut_off.store(true, Ordering::Relaxed);
    let end = Instant::now() + span;
    let calls = traffic(&replicas, 2 * MS, || Instant::now() > end).await;
    let healthy = calls[1..].iter().flatten();
    let (bad, sum) = healthy.fold((0, 0), |(bad, sum), (is_ok, _)| {
        (bad + u32::from(!is_ok), sum + 1)
    });
    eprintln!("one cut off: {bad} of {sum} calls of the others refused");
    assert_eq!(bad, 0);
    stop(replicas).await;
}

fn all(replicas: &[Replica], state: State) -> bool {
    replicas.iter().all(|one| one.state() == state)
}

/// Number of messages that the replicas have sent.
fn messages(replicas: &[Replica]) -> u64 {
    replicas.iter().map(|one| one.fleet.sent()).sum()
}
