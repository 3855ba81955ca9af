//! A rate that several runtimes have together, on a real server.

use std::sync::Mutex;
use std::time::Duration;

use breakerbox::config::Settings;
use tokio::time::Instant;

use crate::replicas::{Replica, stop};
use crate::server::{NatsServer, until};

const RATE: f64 = 200.0;
const BURST: f64 = 40.0;
const REPLICAS: usize = 4;

/// Demand of the replicas, in calls a second.
const UNEVEN: [f64; REPLICAS] = [240.0, 60.0, 20.0, 5.0];

fn settings(url: &str, name: usize) -> Settings {
    let text = format!(
        "[fleet]\nservers = [\"{url}\"]\nreplica = \"replica-{name}\"\nheartbeat = \"500ms\"\n\
         [dependencies.dep.rate_limit]\nrate = {RATE}\nburst = {BURST}\nshared = true\n"
    );
    let loaded = Settings::loader().bare().toml(text).load();
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

async fn start(server: &NatsServer) -> Vec<Replica> {
    let target = std::sync::Arc::default();
    let mut replicas = Vec::new();
    for index in 0..REPLICAS {
        replicas.push(Replica::start(settings(&server.url(), index), &target).await);
    }
    for one in &replicas {
        until("all replicas know each other", || {
            let status = one.status();
            status.connected && status.replicas.len() == REPLICAS
        })
        .await;
    }
    // FLT-14: a replica counts from its second heartbeat.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    replicas
}

/// Calls that went out, by replica, with the longest time that any call took.
struct Demanded {
    out: Vec<Vec<Instant>>,
    slowest: Duration,
    span: Duration,
}

impl Demanded {
    fn all(&self) -> Vec<Instant> {
        let mut all: Vec<Instant> = self.out.iter().flatten().copied().collect();
        all.sort();
        all
    }

    fn rate_of(&self, which: usize) -> f64 {
        self.out[which].len() as f64 / self.span.as_secs_f64()
    }

    /// The largest excess over `burst + rate × t` in any span.
    fn excess(&self) -> f64 {
        let all = self.all();
        let Some(begin) = all.first() else {
            return 0.0;
        };
        let mut least = f64::MAX;
        let mut most = f64::MIN;
        for (index, at) in all.iter().enumerate() {
            let made = RATE * at.duration_since(*begin).as_secs_f64();
            least = least.min(index as f64 - made);
            most = most.max(index as f64 - made - least + 1.0 - BURST);
        }
        most
    }
}

/// Lets each replica make as many calls a second as its demand.
async fn demand(replicas: &[Replica], demands: &[f64], span: Duration) -> Demanded {
    let end = Instant::now() + span;
    let slowest = Mutex::new(Duration::ZERO);
    let each = replicas.iter().zip(demands).map(async |(one, demand)| {
        let out = Mutex::new(Vec::new());
        let gap = Duration::from_secs_f64(1.0 / demand);
        let mut next = Instant::now();
        while next < end {
            tokio::time::sleep_until(next).await;
            next += gap;
            let begin = Instant::now();
            let attempt = async || {
                out.lock().unwrap().push(Instant::now());
                Ok::<_, String>(())
            };
            let _ = one.client.run(attempt).await;
            let mut slowest = slowest.lock().unwrap();
            *slowest = slowest.max(begin.elapsed());
        }
        out.into_inner().unwrap()
    });
    let out = futures_util::future::join_all(each).await;
    Demanded {
        out,
        slowest: slowest.into_inner().unwrap(),
        span,
    }
}

#[expect(clippy::print_stderr, reason = "the figures of the test")]
fn print(what: &str, told: &Demanded) {
    let sum = told.all().len() as f64;
    let error = sum / (RATE * told.span.as_secs_f64()) - 1.0;
    let excess = told.excess();
    let rates: Vec<f64> = (0..told.out.len())
        .map(|one| told.rate_of(one).round())
        .collect();
    eprintln!(
        "{what}: error {error:+.3}, excess over burst and rate {excess:.2}, by replica {rates:?} a second, \
         slowest call {:?}",
        told.slowest
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_13_runtimes_on_a_server_have_one_rate_together() {
    let Some(mut server) = NatsServer::start().await else {
        return;
    };
    let replicas = start(&server).await;
    let span = Duration::from_secs(4);
    let told = demand(&replicas, &UNEVEN, span).await;
    print("uneven demand", &told);
    // A call that is late on its thread is seen late; a slow machine has more of them.
    assert!(told.excess() <= 0.05 * RATE, "{}", told.excess());
    let sum = told.all().len() as f64;
    assert!(sum >= 0.8 * RATE * span.as_secs_f64(), "{sum}");
    let moved: Vec<f64> = UNEVEN.iter().rev().copied().collect();
    demand(&replicas, &moved, Duration::from_secs(1)).await;
    let told = demand(&replicas, &moved, span / 2).await;
    print("a second after it has moved", &told);
    assert!(told.rate_of(3) > 2.0 * told.rate_of(0));
    let sum = told.all().len() as f64;
    assert!(sum >= 0.75 * RATE * (span / 2).as_secs_f64(), "{sum}");

    // Without the server each has its share, and no call waits for longer than `fleet.timeout`.
    server.kill();
    for one in &replicas {
        until("the loss is noticed", || !one.status().connected).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = demand(&replicas, &UNEVEN, span / 2).await;
    print("without the server", &told);
    let share = RATE / REPLICAS as f64;
    let rate = told.rate_of(0);
    assert!((0.8 * share..1.2 * share).contains(&rate), "{rate}");
    server.begin().await;
    for one in &replicas {
        until("it is joined again", || one.status().connected).await;
    }
    demand(&replicas, &UNEVEN, Duration::from_secs(1)).await;
    let told = demand(&replicas, &UNEVEN, span / 2).await;
    print("after its return", &told);
    assert!(told.rate_of(0) > 1.5 * share, "{}", told.rate_of(0));
    stop(replicas).await;
}
