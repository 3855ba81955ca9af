//! Fleets of several runtimes on virtual time, on a board in memory that can be lost.

mod keys;
mod lives;
mod orders;
mod rates;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use breakerbox_actors::testing::{
    Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused,
};
use breakerbox_policy::{Override, OverrideMode, ProbeLease, State};

use super::*;
use crate::config::ProbeSharing;
use crate::{CallError, Client, EventKind};

const DEP: &str = "dep";
const MS: Duration = Duration::from_millis(1);

/// One replica: a runtime with one dependency.
struct TestReplica {
    runtime: TestRuntime,
    client: Client<Scripted<(), ()>>,
    script: Script<(), ()>,
    fleet: Fleet,
    /// True while its calls fail.
    fails: Arc<std::sync::atomic::AtomicBool>,
    hint: Arc<Mutex<Option<Duration>>>,
    /// Times of the calls that reached the dependency.
    times: Arc<Mutex<Vec<tokio::time::Instant>>>,
}

/// Replicas on one board.
struct TestFleet {
    board: ScriptedBoard,
    replicas: Vec<TestReplica>,
}

fn settings(trips: breakerbox_policy::fleet::TripSharing) -> (FleetConfig, Settings) {
    let config = FleetConfig::new("nats://127.0.0.1:1");
    let mut settings = Settings::default();
    settings.fleet = Some(config.clone());
    let mut one = crate::config::DependencyConfig::default();
    one.fleet.trips = trips;
    one.fleet.probes = ProbeSharing::One;
    settings.dependencies.insert(DEP.to_owned(), one);
    (config, settings)
}

impl TestFleet {
    async fn start(count: usize) -> Self {
        Self::with(count, breakerbox_policy::fleet::TripSharing::Confirm).await
    }

    async fn with(count: usize, trips: breakerbox_policy::fleet::TripSharing) -> Self {
        let board = ScriptedBoard::default();
        let mut replicas = Vec::new();
        for index in 0..count {
            replicas.push(TestReplica::start(&board, index, trips).await);
        }
        let fleet = Self { board, replicas };
        // The second heartbeat of each has been heard.
        fleet.pass(Duration::from_secs(5)).await;
        fleet
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn states(&self) -> Vec<State> {
        let states = self.replicas.iter().map(|one| one.client.status().state);
        states.collect()
    }

    async fn finish(self) {
        for replica in self.replicas {
            replica.runtime.finish().await;
        }
    }
}

/// Starts the dependency of a replica.
async fn start_dependency(
    runtime: &TestRuntime,
    script: &Script<(), ()>,
    rate_limit: Option<breakerbox_policy::RateLimitSettings>,
) -> Client<Scripted<(), ()>> {
    let worker = script.clone();
    let lease = ProbeLease::Leased {
        timeout: FleetConfig::new("nats://127.0.0.1:1").timeout,
    };
    let started = runtime
        .dependency(DEP)
        .workers(move || worker.dependency())
        .configure(move |settings| {
            settings.breaker.failure_threshold = std::num::NonZeroU32::new(5);
            settings.breaker.consecutive_failures = None;
            settings.breaker.open.base = Duration::from_secs(1);
            settings.breaker.open.factor = 1.0;
            settings.breaker.open.jitter = 0.0;
            settings.breaker.half_open.lease = lease;
            settings.rate_limit = rate_limit;
            settings.rate_sharing = rate_limit.map(|_| breakerbox_policy::RateSharing::default());
        });
    started.start().await.unwrap()
}

impl TestReplica {
    async fn start(
        board: &ScriptedBoard,
        index: usize,
        trips: breakerbox_policy::fleet::TripSharing,
    ) -> Self {
        Self::limited(board, index, (trips, None)).await
    }

    async fn limited(
        board: &ScriptedBoard,
        index: usize,
        (trips, rate_limit): (
            breakerbox_policy::fleet::TripSharing,
            Option<breakerbox_policy::RateLimitSettings>,
        ),
    ) -> Self {
        let beat = FleetConfig::new("nats://127.0.0.1:1").heartbeat;
        Self::beating(board, (index, beat), (trips, rate_limit)).await
    }

    /// `beat`: the interval of its heartbeats.
    async fn beating(
        board: &ScriptedBoard,
        (index, beat): (usize, Duration),
        (trips, rate_limit): (
            breakerbox_policy::fleet::TripSharing,
            Option<breakerbox_policy::RateLimitSettings>,
        ),
    ) -> Self {
        let times = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::clone(&times);
        let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let hint = Arc::new(Mutex::new(None::<Duration>));
        let (failing, asked) = (Arc::clone(&fails), Arc::clone(&hint));
        let script = Script::new(move |(), _| {
            called.lock().unwrap().push(tokio::time::Instant::now());
            let reaction = match *asked.lock().unwrap() {
                Some(wait) => Reaction::Fail(ScriptedError::throttled().retry_after(wait)),
                None if failing.load(std::sync::atomic::Ordering::Relaxed) => {
                    Reaction::Fail(ScriptedError::failure("down"))
                }
                None => Reaction::Answer(()),
            };
            reaction.after(5 * MS)
        });
        let runtime = TestRuntime::start().await;
        let (config, settings) = settings(trips);
        let client = start_dependency(&runtime, &script, rate_limit).await;
        let name = format!("replica-{index}");
        let named = FleetConfig {
            replica: Some(name),
            heartbeat: beat,
            ..config.clone()
        };
        let place = (board, index);
        let fleet = Fleet::start_scripted(&runtime, place, &named, &settings).await;
        Self {
            runtime,
            client,
            script,
            fleet: fleet.unwrap(),
            fails,
            hint,
            times,
        }
    }

    /// Lets the dependency ask for a pause, or no longer.
    fn throttle(&self, hint: Option<Duration>) {
        *self.hint.lock().unwrap() = hint;
    }

    fn fail(&self, fails: bool) {
        self.fails
            .store(fails, std::sync::atomic::Ordering::Relaxed);
    }

    /// Makes calls until one is refused, at most `count`. Returns how many reached the dependency.
    async fn call(&self, count: usize) -> u64 {
        let before = self.script.calls();
        for _ in 0..count {
            let _ = self.client.ask(()).await;
        }
        self.script.calls() - before
    }

    fn kinds(&self) -> Vec<String> {
        let events = self.runtime.events_since(0).into_iter();
        let kinds = events.filter_map(|event| match event.kind {
            EventKind::Adopted { how, .. } => Some(how.to_owned()),
            EventKind::Held { .. } => Some("held".to_owned()),
            EventKind::Fenced { .. } => Some("fenced".to_owned()),
            _ => None,
        });
        kinds.collect()
    }
}

#[test]
fn flt_14_replicas_know_each_other_after_two_heartbeats_and_forget_the_dead() {
    run_paused(async || {
        let fleet = TestFleet::start(3).await;
        let status = fleet.replicas[0].fleet.status();
        assert!(status.connected);
        let names: Vec<&str> = status.replicas.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["replica-0", "replica-1", "replica-2"]);
        assert_eq!(fleet.replicas[0].fleet.figures().replicas, 3);
        fleet.board.cut_off(2);
        fleet.pass(Duration::from_secs(8)).await;
        assert_eq!(fleet.replicas[0].fleet.figures().replicas, 2);
        assert!(!fleet.replicas[2].fleet.status().connected);
        fleet.replicas[1].fleet.leave().await;
        fleet.pass(MS).await;
        assert_eq!(fleet.replicas[0].fleet.figures().replicas, 1);
        fleet.finish().await;
    });
}

#[test]
fn flt_4_evidence_of_one_lets_the_others_open_after_fewer_failures_of_their_own() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        a.fail(true);
        assert_eq!(a.call(10).await, 5, "alone it takes five");
        fleet.pass(MS).await;
        assert_eq!(b.client.status().state, State::Closed);
        b.fail(true);
        assert_eq!(b.call(10).await, 3, "beside evidence 0.6 of five");
        assert_eq!(b.kinds(), ["confirm"]);
        fleet.pass(MS).await;
        assert_eq!(a.fleet.status().dependencies[DEP].evidence, 2);
        fleet.finish().await;
    });
}

#[test]
fn flt_5_a_quorum_opens_an_idle_replica_and_none_that_succeeds() {
    run_paused(async || {
        let fleet = TestFleet::start(4).await;
        let [a, b, idle, healthy] = &fleet.replicas[..] else {
            unreachable!()
        };
        a.fail(true);
        b.fail(true);
        let busy = async {
            for _ in 0..80 {
                healthy.client.ask(()).await.unwrap();
            }
        };
        let broken = async {
            a.call(5).await;
            b.call(5).await;
            fleet.pass(190 * MS).await;
            assert_eq!(
                idle.client.status().state,
                State::Closed,
                "it settles first"
            );
            fleet.pass(20 * MS).await;
        };
        tokio::join!(busy, broken);
        let open = State::Open;
        assert_eq!(fleet.states(), [open, open, open, State::Closed]);
        assert_eq!(idle.kinds(), ["quorum"]);
        assert_eq!(
            fleet.replicas[0].fleet.status().dependencies[DEP].evidence,
            2,
            "an adopted trip is no evidence"
        );
        fleet.finish().await;
    });
}

#[test]
fn flt_6_one_word_opens_another_only_where_that_is_set() {
    use breakerbox_policy::fleet::TripSharing;
    for (trips, state) in [
        (TripSharing::Any, State::Open),
        (TripSharing::Confirm, State::Closed),
        (TripSharing::Off, State::Closed),
    ] {
        run_paused(async || {
            let fleet = TestFleet::with(2, trips).await;
            fleet.replicas[0].fail(true);
            fleet.replicas[0].call(5).await;
            fleet.pass(10 * MS).await;
            assert_eq!(fleet.states(), [State::Open, state], "{trips:?}");
            fleet.finish().await;
        });
    }
}

/// Lets every replica call each 10 ms for a time. Returns the calls that reached the dependencies.
async fn traffic(fleet: &TestFleet, time: Duration) -> u64 {
    let before: u64 = fleet.replicas.iter().map(|one| one.script.calls()).sum();
    let end = tokio::time::Instant::now() + time;
    let each = fleet.replicas.iter().map(async |one| {
        while tokio::time::Instant::now() < end {
            let _ = one.client.ask(()).await;
            tokio::time::sleep(10 * MS).await;
        }
    });
    futures_util::future::join_all(each).await;
    let after: u64 = fleet.replicas.iter().map(|one| one.script.calls()).sum();
    after - before
}

#[test]
fn flt_7_one_probe_goes_out_in_a_half_open_period_of_the_whole_fleet() {
    run_paused(async || {
        let fleet = TestFleet::start(4).await;
        for one in &fleet.replicas {
            one.fail(true);
        }
        traffic(&fleet, 500 * MS).await;
        assert_eq!(fleet.states(), [State::Open; 4]);
        let probes = traffic(&fleet, Duration::from_secs(20)).await;
        let periods: usize = fleet
            .replicas
            .iter()
            .map(|one| {
                let moves = one.runtime.transitions().into_iter();
                moves.filter(|(_, _, to)| *to == State::HalfOpen).count()
            })
            .sum();
        let periods = periods as u64;
        // The last one may still wait for its call.
        assert!(
            probes == periods || probes + 1 == periods,
            "{probes}, {periods}"
        );
        assert!((15..=21).contains(&probes), "about one a second: {probes}");
        for one in &fleet.replicas {
            one.fail(false);
        }
        traffic(&fleet, Duration::from_secs(2)).await;
        assert_eq!(fleet.states(), [State::Closed; 4], "a verdict closes all");
        let verdicts = fleet
            .replicas
            .iter()
            .filter(|one| one.kinds().contains(&"verdict".to_owned()));
        assert_eq!(verdicts.count(), 3);
        let figures: Vec<FleetFigures> = fleet
            .replicas
            .iter()
            .map(|one| one.fleet.figures())
            .collect();
        let alone: u64 = figures
            .iter()
            .map(|one| one.dependencies[0].2.leases_alone)
            .sum();
        assert_eq!(alone, 0);
        fleet.finish().await;
    });
}

#[test]
fn flt_1_without_a_board_each_decides_and_probes_alone() {
    run_paused(async || {
        let fleet = TestFleet::start(3).await;
        for index in 0..3 {
            fleet.board.cut_off(index);
        }
        fleet.pass(10 * MS).await;
        for one in &fleet.replicas {
            one.fail(true);
            assert_eq!(one.call(10).await, 5);
        }
        fleet.pass(Duration::from_secs(1)).await;
        for one in &fleet.replicas {
            one.fail(false);
            // The first asks for the lease, and the answer comes at once.
            let _ = one.client.ask(()).await;
            fleet.pass(MS).await;
            one.client.ask(()).await.unwrap();
            assert_eq!(one.client.status().state, State::Closed);
        }
        fleet.finish().await;
    });
}

#[test]
fn flt_1_a_silent_board_delays_a_probe_by_its_time_limit() {
    run_paused(async || {
        let fleet = TestFleet::start(1).await;
        let one = &fleet.replicas[0];
        one.fail(true);
        one.call(5).await;
        fleet.pass(Duration::from_secs(1)).await;
        one.fail(false);
        fleet.board.hold_answers(true);
        let begin = tokio::time::Instant::now();
        let refused = one.client.ask(()).await.unwrap_err();
        assert!(matches!(refused, CallError::Open(_)), "{refused:?}");
        assert_eq!(begin.elapsed(), Duration::ZERO, "no call waits");
        fleet.pass(260 * MS).await;
        one.client.ask(()).await.unwrap();
        assert_eq!(one.fleet.figures().dependencies[0].2.leases_alone, 1);
        fleet.finish().await;
    });
}

#[test]
fn flt_8_a_late_verdict_is_fenced_off() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        for one in [a, b] {
            one.fail(true);
            one.call(5).await;
        }
        fleet.pass(1100 * MS).await;
        // It holds the lease, and then another one has it while its probe runs.
        let _ = a.client.ask(()).await;
        fleet.pass(MS).await;
        assert_eq!(a.client.status().state, State::HalfOpen);
        fleet.board.lease_to_another(DEP);
        a.fail(false);
        a.client.ask(()).await.unwrap();
        fleet.pass(MS).await;
        assert_eq!(
            a.client.status().state,
            State::Closed,
            "its own probe closes it"
        );
        assert_eq!(a.kinds(), ["fenced"]);
        assert_eq!(
            b.client.status().state,
            State::Open,
            "the other one is not told"
        );
        fleet.finish().await;
    });
}

#[test]
fn flt_15_evidence_is_said_again_after_a_loss_and_nothing_stale_is() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        fleet.board.cut_off(0);
        fleet.pass(MS).await;
        a.fail(true);
        a.call(5).await;
        fleet.pass(500 * MS).await;
        assert_eq!(b.fleet.status().dependencies[DEP].evidence, 0);
        fleet.board.bring_back(0);
        fleet.pass(MS).await;
        assert_eq!(b.fleet.status().dependencies[DEP].evidence, 1);
        fleet.pass(510 * MS).await;
        assert_eq!(
            b.fleet.status().dependencies[DEP].evidence,
            0,
            "only what was left of its open time"
        );
        fleet.finish().await;
    });
}

#[test]
fn flt_12_an_override_of_the_fleet_holds_for_all_and_for_those_that_come_later() {
    run_paused(async || {
        let mut fleet = TestFleet::start(2).await;
        let order = ("a release", "ann");
        let given =
            fleet.replicas[0]
                .fleet
                .operate(DEP, "open", order, Some(Duration::from_secs(60)));
        given.await.unwrap();
        fleet.pass(10 * MS).await;
        let trips = breakerbox_policy::fleet::TripSharing::Confirm;
        let later = TestReplica::start(&fleet.board, 2, trips).await;
        fleet.replicas.push(later);
        fleet.pass(10 * MS).await;
        let overrides = |fleet: &TestFleet| {
            let each = fleet
                .replicas
                .iter()
                .map(|one| one.client.status().overridden);
            each.collect::<Vec<Option<Override>>>()
        };
        for set in overrides(&fleet) {
            let set = set.unwrap();
            assert_eq!(set.mode, OverrideMode::ForcedOpen);
            assert_eq!(set.by, breakerbox_policy::CommandSource::Fleet);
            assert_eq!(set.reason, "a release");
        }
        fleet.replicas[1]
            .fleet
            .operate(DEP, "close", order, None)
            .await
            .unwrap();
        fleet.pass(10 * MS).await;
        assert_eq!(overrides(&fleet), [None, None, None]);
        // One that is given a span ends by itself, also where it was heard late.
        let second = Some(Duration::from_secs(1));
        fleet.replicas[0]
            .fleet
            .operate(DEP, "disable", order, second)
            .await
            .unwrap();
        fleet.pass(Duration::from_secs(2)).await;
        assert_eq!(overrides(&fleet), [None, None, None]);
        fleet.board.cut_off(0);
        fleet.pass(MS).await;
        let refused = fleet.replicas[0]
            .fleet
            .operate(DEP, "open", order, None)
            .await;
        assert_eq!(refused, Err(BoardUnreached));
        fleet.finish().await;
    });
}

#[test]
fn flt_11_a_pause_holds_for_all_replicas_at_once_and_is_not_shortened() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        let [a, b] = &fleet.replicas[..] else {
            unreachable!()
        };
        a.throttle(Some(Duration::from_secs(10)));
        let _ = a.client.ask(()).await;
        a.throttle(None);
        fleet.pass(10 * MS).await;
        let (_, left) = b.client.status().paused.unwrap();
        assert!(left >= Duration::from_millis(9_900), "{left:?}");
        let before = b.script.calls();
        let _ = tokio::time::timeout(100 * MS, b.client.ask(())).await;
        assert_eq!(b.script.calls(), before, "it does not reach the dependency");
        assert_eq!(b.fleet.figures().dependencies[0].2.pauses, 1);
        assert_eq!(
            a.fleet.figures().dependencies[0].2.pauses,
            0,
            "its own is not adopted"
        );
        fleet.finish().await;
    });
}

#[test]
fn flt_16_a_crash_of_the_child_is_a_new_life_of_it() {
    run_paused(async || {
        let fleet = TestFleet::start(2).await;
        fleet.board.crash(0);
        fleet.pass(Duration::from_secs(30)).await;
        assert!(fleet.replicas[0].fleet.status().connected);
        assert_eq!(fleet.replicas[1].fleet.figures().replicas, 2);
        let tree = fleet.replicas[0].runtime.children().await;
        let child = tree.iter().find(|one| one.name == "fleet").unwrap();
        assert!(child.restarts > 0, "{child:?}");
        fleet.finish().await;
    });
}
