//! Token limits of several runtimes, with calls on virtual time.

use std::num::NonZeroU64;

use breakerbox_policy::{MeterRefusal, MeterSettings};
use tokio::time::Instant;

use super::*;
use crate::MeteredLimit;

const SECOND: Duration = Duration::from_secs(1);
/// Tokens a second.
const RATE: u64 = 10_000;
const LIMIT: &str = "total.60000";

/// A limit of 600,000 tokens a minute, and as many at once.
fn settings_of(burst: u64) -> MeterSettings {
    MeterSettings {
        rate: NonZeroU64::new(RATE * 60).unwrap(),
        per: 60 * SECOND,
        burst: NonZeroU64::new(burst).unwrap(),
    }
}

/// Replicas on one board, each with its part of the limit.
async fn start(count: usize, burst: u64, max_wait: Duration) -> (TestFleet, Vec<MeteredLimit>) {
    let fleet = TestFleet::start(count).await;
    let limits = fleet.replicas.iter().map(|one| {
        let place = (DEP, LIMIT);
        one.runtime
            .shared_meter(place, settings_of(burst), max_wait)
    });
    let limits = limits.collect();
    // The next heartbeat looks at the limits.
    fleet.pass(5 * SECOND).await;
    (fleet, limits)
}

/// A call that went out.
#[derive(Debug, Clone, Copy)]
struct TokenCall {
    at: Instant,
    used: u64,
}

/// Lets each replica make as many calls a second as its demand, each of 1,000 to 3,000 reserved tokens,
/// of which `used` parts of a hundred are used, for up to five seconds.
async fn demand(
    limits: &[MeteredLimit],
    demands: &[f64],
    (used, time): (u64, Duration),
) -> Vec<Vec<TokenCall>> {
    fastrand::seed(7);
    let begin = Instant::now();
    let each = limits.iter().zip(demands).map(async |(limit, demand)| {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let gap = Duration::from_secs_f64(1.0 / demand);
        let mut next = begin + gap.mul_f64(fastrand::f64());
        while next < begin + time {
            tokio::time::sleep_until(next).await;
            let (limit, calls) = (limit.clone(), Arc::clone(&calls));
            actix::spawn(async move {
                let amount = fastrand::u64(1_000..=3_000);
                let Ok(held) = limit.reserve(amount, None).await else {
                    return;
                };
                let used = amount * used / 100;
                let at = Instant::now();
                calls.lock().unwrap().push(TokenCall { at, used });
                tokio::time::sleep(fastrand::u32(10..5_000) * MS).await;
                held.settle(used);
            });
            next += gap.mul_f64(0.5 + fastrand::f64());
        }
        calls
    });
    let each = futures_util::future::join_all(each).await;
    // The last ones have ended.
    tokio::time::sleep(6 * SECOND).await;
    let all = each.into_iter();
    all.map(|calls| calls.lock().unwrap().clone()).collect()
}

fn used(calls: &[TokenCall], from: Instant, span: Duration) -> f64 {
    let inside = |call: &&TokenCall| call.at >= from && call.at < from + span;
    let tokens: u64 = calls.iter().filter(inside).map(|call| call.used).sum();
    tokens as f64
}

/// The largest excess over `burst + rate × t` in any span.
fn excess(each: &[Vec<TokenCall>], burst: u64) -> f64 {
    let mut all: Vec<TokenCall> = each.iter().flatten().copied().collect();
    all.sort_by_key(|call| call.at);
    let begin = all[0].at;
    let (mut sum, mut least, mut most) = (0.0, f64::MAX, f64::MIN);
    for call in &all {
        let made = RATE as f64 * (call.at - begin).as_secs_f64();
        least = f64::min(least, sum - made);
        sum += call.used as f64;
        most = f64::max(most, sum - made - least - burst as f64);
    }
    most
}

const UNEVEN: [f64; 4] = [12.0, 5.0, 2.0, 1.0];

#[test]
fn flt_13_replicas_of_uneven_demand_have_one_token_limit() {
    run_paused(async || {
        let burst = RATE * 20;
        let (fleet, limits) = start(4, burst, Duration::ZERO).await;
        let begin = Instant::now();
        let sent: u64 = fleet.replicas.iter().map(|one| one.fleet.sent()).sum();
        let each = demand(&limits, &UNEVEN, (40, 120 * SECOND)).await;
        let sent = fleet
            .replicas
            .iter()
            .map(|one| one.fleet.sent())
            .sum::<u64>()
            - sent;
        // The burst is used up by then.
        let (from, span) = (begin + 60 * SECOND, 60 * SECOND);
        let all: Vec<TokenCall> = each.iter().flatten().copied().collect();
        let error = used(&all, from, span) / (RATE * 60) as f64 - 1.0;
        // A heartbeat each two seconds of each replica.
        let beats = 4 * 126 / 2;
        println!(
            "{error:+.3}, {sent} messages, {beats} heartbeats, {} calls",
            all.len()
        );
        assert!(error.abs() <= 0.05, "{error}");
        assert!(excess(&each, burst) <= 0.0, "{}", excess(&each, burst));
        assert!(
            (sent - beats) * 4 <= all.len() as u64,
            "no message for a call"
        );
        assert!(each[0].len() > each[1].len() && each[1].len() > each[3].len());
        let figures = fleet.replicas[0].fleet.figures();
        let [(name, of, counts)] = &figures.token_limits[..] else {
            unreachable!()
        };
        assert_eq!((&**name, &**of, counts.offline), (DEP, "total", 0));
        assert!(counts.granted > 0);
        assert!(limits.iter().all(|limit| limit.reserved() == 0));
        fleet.finish().await;
    });
}

#[test]
fn flt_13_debts_of_one_replica_delay_the_calls_of_all() {
    run_paused(async || {
        let burst = RATE * 10;
        let (fleet, limits) = start(2, burst, 60 * SECOND).await;
        let held = limits[0].reserve(1_000, None).await.unwrap();
        held.settle(burst);
        fleet.pass(10 * MS).await;
        assert_eq!(limits[0].owed(), 0, "the board knows it");
        let begin = Instant::now();
        let other = limits[1].reserve(10_000, None).await.unwrap();
        let waited = begin.elapsed();
        assert!(waited >= SECOND && waited < 3 * SECOND, "{waited:?}");
        other.give_back();
        let each = demand(&limits, &[8.0, 8.0], (150, 60 * SECOND)).await;
        let all: Vec<TokenCall> = each.iter().flatten().copied().collect();
        let span = Instant::now() - begin;
        // In the long run it is the rate.
        let most = RATE as f64 * span.as_secs_f64() + burst as f64;
        assert!(used(&all, begin, span) <= most);
        fleet.finish().await;
    });
}

#[test]
fn llm_20_a_reservation_above_the_burst_is_refused_and_one_of_the_burst_goes_out() {
    run_paused(async || {
        let burst = 600;
        let (fleet, limits) = start(2, burst, Duration::ZERO).await;
        let refusal = limits[0].reserve(601, None).await.unwrap_err();
        let expected = MeterRefusal::TooMuch { asked: 601, burst };
        assert_eq!(refusal, expected);
        assert_eq!(limits[0].wait_for(601), Err(expected));
        let held = limits[1].reserve(600, None).await.unwrap();
        assert_eq!(held.amount(), 600);
        fleet.pass(10 * MS).await;
        let late = limits[0].reserve(300, None).await.unwrap_err();
        assert!(matches!(late, MeterRefusal::NotBefore(_)), "{late:?}");
        held.give_back();
        assert_eq!(limits[1].reserved(), 0);
        fleet.finish().await;
    });
}

#[test]
fn flt_13_without_the_board_each_has_its_share_of_the_tokens() {
    run_paused(async || {
        let burst = RATE * 4;
        let (fleet, limits) = start(4, burst, Duration::ZERO).await;
        for index in 0..4 {
            fleet.board.cut_off(index);
        }
        fleet.pass(SECOND).await;
        assert_eq!(limits[0].available(), RATE);
        let begin = Instant::now();
        let each = demand(&limits, &[20.0, 20.0, 20.0, 0.5], (100, 60 * SECOND)).await;
        for calls in &each[..3] {
            let rate = used(calls, begin, 60 * SECOND) / 60.0;
            assert!((2_400.0..2_800.0).contains(&rate), "{rate}");
        }
        assert!(each[3].len() >= 25, "below its share none is refused");
        // More than its part of the burst: a call all the same.
        fleet.pass(30 * SECOND).await;
        let heavy = limits[3].reserve(burst, None).await.unwrap();
        heavy.give_back();
        for index in 0..4 {
            fleet.board.bring_back(index);
        }
        fleet.pass(3 * SECOND).await;
        let begin = Instant::now();
        let each = demand(&limits, &[20.0, 20.0, 0.1, 0.1], (100, 60 * SECOND)).await;
        let all: Vec<TokenCall> = each.iter().flatten().copied().collect();
        let rate = used(&all, begin + 20 * SECOND, 40 * SECOND) / 40.0;
        assert!((9_300.0..10_700.0).contains(&rate), "{rate}");
        fleet.finish().await;
    });
}
