//! A token limit that several runtimes have together, on a real server.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox::MeteredLimit;
use breakerbox::config::Settings;
use breakerbox::policy::MeterSettings;
use tokio::time::Instant;

use crate::replicas::{DEP, Replica, stop};
use crate::server::{NatsServer, until};

/// Tokens a second.
const RATE: u64 = 20_000;
const BURST: u64 = 20_000;
const REPLICAS: usize = 3;

/// Calls a second, of 400 reserved and 300 used tokens: more than the rate together.
const UNEVEN: [f64; REPLICAS] = [80.0, 30.0, 10.0];
const RESERVED: u64 = 400;
const USED: u64 = 300;

fn settings(url: &str, name: usize) -> Settings {
    let text = format!(
        "[fleet]\nservers = [\"{url}\"]\nreplica = \"replica-{name}\"\nheartbeat = \"500ms\"\n\
         [dependencies.dep]\n"
    );
    let loaded = Settings::loader().bare().toml(text).load();
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

async fn start(server: &NatsServer) -> (Vec<Replica>, Vec<MeteredLimit>) {
    let target = Arc::default();
    let (mut replicas, mut limits) = (Vec::new(), Vec::new());
    for index in 0..REPLICAS {
        let one = Replica::start(settings(&server.url(), index), &target).await;
        let limit = MeterSettings {
            rate: NonZeroU64::new(RATE).unwrap(),
            per: Duration::from_secs(1),
            burst: NonZeroU64::new(BURST).unwrap(),
        };
        let place = (DEP, "total.1000");
        limits.push(one.runtime.shared_meter(place, limit, Duration::ZERO));
        replicas.push(one);
    }
    for one in &replicas {
        until("all replicas know each other", || {
            let status = one.status();
            let view = one.runtime.shared_limit(DEP, "total.1000");
            let is_joined = view.is_some_and(|view| view.is_connected);
            is_joined && status.connected && status.replicas.len() == REPLICAS
        })
        .await;
    }
    // FLT-14: a replica counts from its second heartbeat.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    (replicas, limits)
}

/// The calls that went out, with the tokens that each has used.
type Calls = Vec<(Instant, u64)>;

/// Lets each replica make as many calls a second as its demand.
async fn demand(limits: &[MeteredLimit], span: Duration, used: u64) -> Vec<Calls> {
    let end = Instant::now() + span;
    let each = limits.iter().zip(UNEVEN).map(async |(limit, demand)| {
        let out = Arc::new(Mutex::new(Vec::new()));
        let gap = Duration::from_secs_f64(1.0 / demand);
        let mut next = Instant::now();
        let mut running = Vec::new();
        while next < end {
            tokio::time::sleep_until(next).await;
            next += gap;
            let (limit, out) = (limit.clone(), Arc::clone(&out));
            running.push(tokio::spawn(async move {
                if let Ok(held) = limit.reserve(RESERVED, None).await {
                    out.lock().unwrap().push((Instant::now(), used));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    held.settle(used);
                }
            }));
        }
        for one in running {
            one.await.unwrap();
        }
        out.lock().unwrap().clone()
    });
    futures_util::future::join_all(each).await
}

/// The largest excess over `burst + rate × t` in any span.
fn excess(each: &[Calls]) -> f64 {
    let mut all: Calls = each.iter().flatten().copied().collect();
    all.sort();
    let begin = all[0].0;
    let (mut sum, mut least, mut most) = (0.0, f64::MAX, f64::MIN);
    for (at, used) in all {
        let made = RATE as f64 * at.duration_since(begin).as_secs_f64();
        least = f64::min(least, sum - made);
        sum += used as f64;
        most = f64::max(most, sum - made - least - BURST as f64);
    }
    most
}

fn sum(each: &[Calls]) -> f64 {
    let all = each.iter().flatten();
    all.map(|(_, used)| *used as f64).sum()
}

#[expect(clippy::print_stderr, reason = "the figures of the test")]
fn print(what: &str, each: &[Calls], span: Duration) {
    let rate = sum(each) / span.as_secs_f64();
    let by: Vec<usize> = each.iter().map(Vec::len).collect();
    let excess = excess(each);
    eprintln!("{what}: {rate:.0} tokens a second, {excess:.0} above burst and rate, calls {by:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_13_runtimes_on_a_server_have_one_token_limit_together() {
    let Some(mut server) = NatsServer::start().await else {
        return;
    };
    let (replicas, limits) = start(&server).await;
    let span = Duration::from_secs(5);
    let each = demand(&limits, span, USED).await;
    print("uneven demand", &each, span);
    // A call that is late on its thread is seen late.
    assert!(excess(&each) <= 0.05 * RATE as f64, "{}", excess(&each));
    let least = 0.8 * RATE as f64 * span.as_secs_f64();
    assert!(sum(&each) >= least, "{}", sum(&each));
    assert!(each[0].len() > each[1].len() && each[1].len() > each[2].len());
    let granted = |one: &Replica| {
        let view = one.runtime.shared_limit(DEP, "total.1000").unwrap();
        view.counts.granted
    };
    assert!(replicas.iter().all(|one| granted(one) > 0));

    // More is used than was reserved: the debts are paid by the calls that follow.
    let each = demand(&limits, span, 2 * RESERVED).await;
    print("twice as much as reserved", &each, span);
    let most = RATE as f64 * span.as_secs_f64() + BURST as f64;
    let running = (RESERVED * 20) as f64;
    assert!(sum(&each) <= most + running, "{}", sum(&each));

    // Without the server each has its share.
    server.kill();
    for one in &replicas {
        until("the loss is noticed", || !one.status().connected).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = demand(&limits, span, USED).await;
    print("without the server", &each, span);
    let own = sum(&each[..1]) / span.as_secs_f64();
    let share = RATE as f64 / REPLICAS as f64;
    assert!(own <= 1.5 * share, "{own}");
    assert!(own >= 0.7 * share, "{own}");
    server.begin().await;
    for one in &replicas {
        until("it is joined again", || one.status().connected).await;
    }
    demand(&limits, Duration::from_secs(2), USED).await;
    let each = demand(&limits, span, USED).await;
    print("after its return", &each, span);
    assert!(sum(&each) >= least, "{}", sum(&each));
    stop(replicas).await;
}
