//! Shared rates of several runtimes, with calls on virtual time.

use std::num::NonZeroU32;

use breakerbox_policy::RateLimitSettings;
use tokio::time::Instant;

use super::*;
use breakerbox_policy::fleet::TripSharing;

const SECOND: Duration = Duration::from_secs(1);

/// Demand of eight replicas for 800 calls a second of 500.
const UNEVEN: [f64; 8] = [300.0, 200.0, 120.0, 80.0, 50.0, 30.0, 15.0, 5.0];

fn limit(burst: u32, max_wait: Duration) -> RateLimitSettings {
    RateLimitSettings {
        rate: 500.0,
        per: SECOND,
        burst: NonZeroU32::new(burst).unwrap(),
        max_wait,
    }
}

async fn fleet(count: usize, limit: RateLimitSettings) -> TestFleet {
    let board = ScriptedBoard::default();
    let mut replicas = Vec::new();
    for index in 0..count {
        let rate = Some(limit);
        let one = TestReplica::limited(&board, index, (TripSharing::Confirm, rate)).await;
        replicas.push(one);
    }
    let fleet = TestFleet { board, replicas };
    fleet.pass(Duration::from_secs(5)).await;
    fleet
}

/// Lets each replica make as many calls a second as its demand for a time. Returns the times at which
/// those of each went out.
async fn demand(fleet: &TestFleet, demands: &[f64], time: Duration) -> Vec<Vec<Duration>> {
    fastrand::seed(7);
    let begin = Instant::now();
    let each = fleet
        .replicas
        .iter()
        .zip(demands)
        .map(async |(one, demand)| {
            let before = one.times.lock().unwrap().len();
            let gap = Duration::from_secs_f64(1.0 / demand);
            let mut next = begin + gap.mul_f64(fastrand::f64());
            while next < begin + time {
                tokio::time::sleep_until(next).await;
                let client = one.client.clone();
                actix::spawn(async move { client.ask(()).await });
                next += gap.mul_f64(0.5 + fastrand::f64());
            }
            let times = one.times.lock().unwrap();
            times[before..].iter().map(|at| *at - begin).collect()
        });
    futures_util::future::join_all(each).await
}

fn sorted(each: &[Vec<Duration>]) -> Vec<Duration> {
    let mut all: Vec<Duration> = each.iter().flatten().copied().collect();
    all.sort();
    all
}

/// Number of calls in the fullest second.
fn fullest(all: &[Duration]) -> usize {
    let inside = |begin: &Duration| {
        let of = |at: &&Duration| **at >= *begin && **at < *begin + SECOND;
        all.iter().filter(of).count()
    };
    all.iter().map(inside).max().unwrap_or(0)
}

#[test]
fn flt_13_eight_replicas_of_uneven_demand_have_one_rate() {
    run_paused(async || {
        let fleet = fleet(8, limit(50, Duration::ZERO)).await;
        let each = demand(&fleet, &UNEVEN, 10 * SECOND).await;
        let all = sorted(&each);
        let error = all.len() as f64 / 5_000.0 - 1.0;
        println!("{error:+.3}, fullest second {}", fullest(&all));
        assert!(error.abs() <= 0.05, "{error}");
        assert!(fullest(&all) <= 550);
        // The more demand a replica has, the more of its calls go out.
        assert!(each[0].len() > each[3].len() && each[3].len() > each[7].len());
        let moved: Vec<f64> = UNEVEN.iter().rev().copied().collect();
        demand(&fleet, &moved, SECOND).await;
        let each = demand(&fleet, &moved, 2 * SECOND).await;
        let fair = 2.0 * 500.0 * 300.0 / 800.0;
        let share = each[7].len() as f64 / fair;
        assert!((0.85..1.15).contains(&share), "{share}");
        let figures = fleet.replicas[0].fleet.figures();
        let [(name, counts)] = &figures.rates[..] else {
            unreachable!()
        };
        assert_eq!((&**name, counts.offline), (DEP, 0));
        assert!(counts.granted > 0);
        fleet.finish().await;
    });
}

#[test]
fn flt_13_calls_wait_for_their_turn_as_under_a_limit_of_their_own() {
    run_paused(async || {
        let fleet = fleet(2, limit(50, 2 * SECOND)).await;
        let begin = Instant::now();
        let calls = fleet.replicas.iter().flat_map(|one| {
            let calls = (0..200).map(|_| one.client.ask(()));
            calls.collect::<Vec<_>>()
        });
        let ends = futures_util::future::join_all(calls).await;
        assert!(ends.iter().all(Result::is_ok), "all have waited");
        // 50 at once at most, and the others by the rate.
        let took = begin.elapsed();
        assert!(took >= 690 * MS && took <= 850 * MS, "{took:?}");
        let late = fleet.replicas[0].client.ask(()).await;
        assert!(late.is_ok());
        fleet.finish().await;
    });
}

#[test]
fn flt_13_without_the_board_each_has_its_share() {
    run_paused(async || {
        let fleet = fleet(4, limit(50, Duration::ZERO)).await;
        for index in 0..4 {
            fleet.board.cut_off(index);
        }
        fleet.pass(SECOND).await;
        let each = demand(&fleet, &[400.0, 400.0, 400.0, 20.0], 4 * SECOND).await;
        for calls in &each[..3] {
            let rate = calls.len() as f64 / 4.0;
            assert!((120.0..130.0).contains(&rate), "{rate}");
        }
        assert!(each[3].len() >= 70, "below its share none is refused");
        for index in 0..4 {
            fleet.board.bring_back(index);
        }
        fleet.pass(10 * MS).await;
        let each = demand(&fleet, &[400.0, 400.0, 0.1, 0.1], 4 * SECOND).await;
        let rate = sorted(&each).len() as f64 / 4.0;
        assert!((475.0..515.0).contains(&rate), "{rate}");
        fleet.finish().await;
    });
}

#[test]
fn flt_13_a_board_that_is_lost_for_a_moment_lets_out_no_burst_more() {
    run_paused(async || {
        let fleet = fleet(4, limit(100, Duration::ZERO)).await;
        let demanding = demand(&fleet, &[250.0; 4], 4 * SECOND);
        let losing = async {
            fleet.pass(2 * SECOND).await;
            for index in 0..4 {
                fleet.board.cut_off(index);
            }
            fleet.pass(400 * MS).await;
            for index in 0..4 {
                fleet.board.bring_back(index);
            }
        };
        let (each, ()) = tokio::join!(demanding, losing);
        let fullest = fullest(&sorted(&each));
        // Without a look at the units so far, there are 100 more at the loss, and again at the return.
        assert!(fullest <= 630, "{fullest}");
        fleet.finish().await;
    });
}

#[test]
fn flt_1_a_call_waits_for_a_silent_board_for_its_time_limit_only() {
    run_paused(async || {
        let fleet = fleet(2, limit(50, Duration::ZERO)).await;
        fleet.board.hold_answers(true);
        let one = &fleet.replicas[0];
        let begin = Instant::now();
        one.client.ask(()).await.unwrap();
        let took = begin.elapsed();
        assert!(
            took >= 250 * MS && took <= 257 * MS,
            "then it goes by the share: {took:?}"
        );
        let begin = Instant::now();
        one.client.ask(()).await.unwrap();
        assert!(begin.elapsed() <= 6 * MS, "and the next one at once");
        fleet.board.hold_answers(false);
        fleet.pass(SECOND).await;
        // A call that goes alone asks, and the answer tells that the board is there.
        let each = demand(&fleet, &[400.0, 0.1], 4 * SECOND).await;
        let rate = each[0].len() as f64 / 4.0;
        assert!(rate > 350.0, "{rate}, and its own share is 250");
        fleet.finish().await;
    });
}
