//! Losses of the broker: a leader of three nodes that is killed, and a network that is cut in two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breakerbox::policy::State;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::replicas::{DEP, Replica, settings, start, stop, traffic};
use crate::server::{NatsCluster, NatsServer, PATIENCE, until};

const MS: Duration = Duration::from_millis(1);
/// Longest time that a call may take longer because of the broker.
const LATER: Duration = Duration::from_millis(25);

/// A relay of TCP connections that can be cut: then nothing goes either way, and no end is told.
struct CutRelay {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl CutRelay {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let cut = Arc::clone(&cut);
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::join!(
                        relay(near_in, far_out, Arc::clone(&cut)),
                        relay(far_in, near_out, cut)
                    );
                });
            }
        });
        Self { port, is_cut }
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_cut: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut piece = [0; 4096];
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else {
            return;
        };
        while is_cut.load(Ordering::Relaxed) {
            tokio::time::sleep(5 * MS).await;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

/// Calls that took longer than a call itself takes, and the slowest of all.
struct SlowCalls {
    slow: usize,
    all: usize,
    slowest: Duration,
}

impl SlowCalls {
    fn of(calls: &[Vec<(bool, Duration)>]) -> Self {
        let took = calls.iter().flatten().map(|(_, took)| *took);
        let slow = took.clone().filter(|took| *took > LATER);
        Self {
            slow: slow.count(),
            all: took.clone().count(),
            slowest: took.max().unwrap_or_default(),
        }
    }

    #[expect(clippy::print_stderr, reason = "the figures of the test")]
    fn check(&self, what: &str) {
        eprintln!(
            "{what}: slowest of {} calls {:?}, {} above {LATER:?}",
            self.all, self.slowest, self.slow
        );
        // A busy machine delays some; calls that wait for the board would be slow all together.
        assert!(self.slow * 20 <= self.all, "{} of {}", self.slow, self.all);
    }
}

/// Waits until evidence of one replica is seen by all. Returns how long it took.
async fn in_step(replicas: &[Replica]) -> Duration {
    let begin = Instant::now();
    for one in replicas {
        until("it is joined again", || one.status().connected).await;
    }
    begin.elapsed()
}

#[expect(clippy::print_stderr, reason = "the figures of the test")]
fn tell(what: &str, took: Duration) {
    eprintln!("{what}: in step again after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_1_a_lost_leader_of_three_nodes_slows_no_call() {
    let Some(mut cluster) = NatsCluster::start().await else {
        return;
    };
    let urls: Vec<String> = cluster.urls().collect();
    let target = Arc::default();
    let mut replicas = Vec::new();
    for index in 0..3 {
        let mut settings = settings(&urls[0], &format!("replica-{index}"), "bucket_replicas = 3");
        if let Some(fleet) = &mut settings.fleet {
            fleet.servers.clone_from(&urls);
        }
        replicas.push(Replica::start(settings, &target).await);
    }
    for one in &replicas {
        until("all replicas know each other", || {
            one.status().connected && one.status().replicas.len() == 3
        })
        .await;
    }
    let killed = cluster.kill_leader("KV_breakerbox_default").await;
    let has_leader = tokio::spawn(cluster.takes_words("breakerbox_default").await);
    let target = &replicas[0].target;
    target.is_down.store(true, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(3);
    let calls = traffic(&replicas, 2 * MS, || Instant::now() > end).await;
    SlowCalls::of(&calls).check("the leader of three nodes killed");
    for one in &replicas {
        assert!(!one.moves(State::Open).is_empty(), "each has opened");
        assert!(!one.moves(State::HalfOpen).is_empty() || one.state() == State::Open);
    }
    target.is_down.store(false, Ordering::Relaxed);
    let is_closed = || replicas.iter().all(|one| one.state() == State::Closed);
    traffic(&replicas, 2 * MS, is_closed).await;
    in_step(&replicas).await;
    // A new leader takes words: a trip is told to all.
    let has_leader = tokio::time::timeout(PATIENCE, has_leader).await;
    let has_leader = has_leader.expect("a new leader is chosen").unwrap();
    let waited = has_leader.elapsed();
    let begin = Instant::now();
    target.is_down.store(true, Ordering::Relaxed);
    let is_told = || {
        replicas.iter().all(|one| {
            let status = one.status();
            status
                .dependencies
                .get(DEP)
                .is_some_and(|one| one.evidence > 1)
        })
    };
    traffic(&replicas, 2 * MS, is_told).await;
    tell(
        &format!("the leader of three nodes killed, {waited:?} after there is a new one"),
        begin.elapsed(),
    );
    cluster.begin(killed).await;
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flt_1_a_partition_slows_no_call_and_both_sides_are_in_step_after_it() {
    let Some(server) = NatsServer::start().await else {
        return;
    };
    let relay = CutRelay::start(server.port()).await;
    let mut replicas = start(&server, 2, "").await;
    let target = Arc::clone(&replicas[0].target);
    for index in 2..4 {
        let far = settings(&relay.url(), &format!("replica-{index}"), "");
        replicas.push(Replica::start(far, &target).await);
    }
    for one in &replicas {
        until("all replicas know each other", || {
            one.status().connected && one.status().replicas.len() == 4
        })
        .await;
    }
    relay.is_cut.store(true, Ordering::Relaxed);
    target.is_down.store(true, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(3);
    let calls = traffic(&replicas, 2 * MS, || Instant::now() > end).await;
    SlowCalls::of(&calls).check("two of four replicas cut off");
    for one in &replicas {
        assert!(!one.moves(State::Open).is_empty(), "each has opened");
        assert!(!one.moves(State::HalfOpen).is_empty() || one.state() == State::Open);
    }
    relay.is_cut.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    let knows = |one: &Replica| {
        let status = one.status();
        status.connected && status.replicas.len() == 4
    };
    let all_know = || replicas.iter().all(knows);
    let calls = traffic(&replicas, 2 * MS, all_know).await;
    let took = begin.elapsed();
    tell("two of four replicas cut off", took);
    SlowCalls::of(&calls).check("their return");
    target.is_down.store(false, Ordering::Relaxed);
    let is_closed = || replicas.iter().all(|one| one.state() == State::Closed);
    traffic(&replicas, 2 * MS, is_closed).await;
    // 2 s by its own clock, and twice that for a busy machine.
    assert!(took < Duration::from_secs(4), "{took:?}");
    stop(replicas).await;
}
