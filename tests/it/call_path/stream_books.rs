//! CALL-1 for streams: the totals add up for every stream and every behaviour of its caller.

use std::panic::AssertUnwindSafe;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, Client, TotalsView, Verdict};
use breakerbox_policy::{Class, DependencySettings, HedgeDelay, HedgeSettings, Symptom};
use fastrand::Rng;
use futures_util::{FutureExt, StreamExt};

use crate::scripted::{Bench, Dep, let_others_run, ms, nonzero, opens_after, pass};
use crate::streamed::{Items, Step, play};

const ROUNDS: u64 = 60;
const CALLS: u64 = 25;

fn steps(random: &mut Rng) -> Vec<Step> {
    let one = |random: &mut Rng| match random.u8(..20) {
        0 => Step::Fail,
        1 => Step::Hang,
        2 if random.bool() => Step::Panic,
        3..10 => Step::Wait(random.u64(..300)),
        _ => Step::Item(random.u32(..)),
    };
    (0..random.usize(..8)).map(|_| one(random)).collect()
}

fn any_settings(random: &mut Rng) -> impl FnOnce(&mut DependencySettings) + use<> {
    let mut random = random.fork();
    move |settings| {
        let mut span = |most: u64| random.bool().then(|| ms(random.u64(1..most)));
        settings.timeout.first_byte = span(400);
        settings.timeout.idle = span(400);
        settings.timeout.attempt = span(800);
        settings.timeout.total = Some(span(2_000).unwrap_or(ms(2_000)));
        opens_after(random.u32(1..8), ms(200))(settings);
        settings.breaker.half_open.probe_lease = ms(500);
        settings.breaker.slow_call = random.bool().then(|| ms(100));
        settings.bulkhead.max_concurrent = nonzero(random.u32(1..6));
        settings.bulkhead.max_queue = random.u32(..6);
        settings.retry.max_attempts = nonzero(random.u32(1..4));
        settings.retry.backoff.base = ms(5);
        settings.hedge = random.bool().then(|| HedgeSettings {
            delay: HedgeDelay::Fixed(ms(50)),
            max_hedges: nonzero(2),
        });
    }
}

/// End of one call as its caller saw it.
#[derive(Debug, PartialEq)]
enum Seen {
    Good,
    Refused,
    Failed,
    /// Dropped by the caller, which may have panicked with the stream.
    Left,
}

fn seen<E>(error: &CallError<E>) -> Seen {
    if error.is_refusal() {
        Seen::Refused
    } else {
        Seen::Failed
    }
}

fn classify(result: Result<&Items, &&str>) -> Verdict {
    result.map_or(Verdict::from(Symptom::Reset), |_| {
        Verdict::from(Class::Success)
    })
}

/// Makes one call and reads its stream at random.
async fn call(client: Client<Dep>, mut random: Rng) -> Seen {
    let options = CallOptions {
        idempotent: Some(random.bool()),
        timeout: random.bool().then(|| ms(random.u64(1..1_500))),
        ..CallOptions::default()
    };
    pass(random.u64(..500)).await;
    let mut scripts = random.fork();
    let open = || {
        let steps = steps(&mut scripts);
        let (wait, fails) = (scripts.u64(..50), scripts.u8(..10) == 0);
        async move {
            pass(wait).await;
            if fails { Err("no") } else { Ok(play(steps)) }
        }
    };
    let patience = ms(random.u64(1..3_000));
    let opening = client.run_stream_with(options, classify, open);
    let mut stream = match tokio::time::timeout(patience, opening).await {
        Err(_) => return Seen::Left,
        Ok(Err(error)) => return seen(&error),
        Ok(Ok(stream)) if random.bool() => stream.long_lived(),
        Ok(Ok(stream)) => stream,
    };
    for _ in 0..random.u8(1..10) {
        if random.bool() {
            pass(random.u64(..300)).await;
        }
        match tokio::time::timeout(patience, stream.next()).await {
            Err(_) => return Seen::Left,
            Ok(None) => return Seen::Good,
            Ok(Some(Err(_))) => return Seen::Failed,
            Ok(Some(Ok(_))) => {}
        }
    }
    Seen::Left
}

/// Checks the totals repeatedly, until it is dropped.
async fn watch(client: &Client<Dep>) {
    loop {
        let status = client.status();
        assert!(status.totals.ended() <= status.totals.submitted);
        // A call without hedges has one slot at most.
        let attempts = status.totals.in_flight() * 3;
        assert!(u64::from(status.in_flight) <= attempts, "{status:?}");
        pass(7).await;
    }
}

/// All randomness comes from the round's number, so a failed round can be run by itself.
#[test]
fn call_1_the_books_of_streams_add_up_whatever_happens() {
    let mut all = TotalsView::default();
    for round in 0..ROUNDS {
        let totals = run_paused(async || {
            let mut random = Rng::with_seed(round);
            let bench = Bench::start(any_settings(&mut random)).await;
            let calls = (0..CALLS).map(|_| {
                let call = AssertUnwindSafe(call(bench.client.clone(), random.fork()));
                call.catch_unwind().map(|seen| seen.unwrap_or(Seen::Left))
            });
            let seen = tokio::select! {
                seen = futures_util::future::join_all(calls) => seen,
                () = watch(&bench.client) => unreachable!("it has no end"),
            };
            let_others_run().await;
            let status = bench.status();
            let totals = status.totals;
            let count = |what: Seen| seen.iter().filter(|seen| **seen == what).count() as u64;
            let told = [
                count(Seen::Good),
                count(Seen::Refused),
                count(Seen::Failed),
                count(Seen::Left),
            ];
            let booked = [
                totals.primary,
                totals.refused,
                totals.failed,
                totals.cancelled,
            ];
            assert_eq!(booked, told, "round {round}");
            assert_eq!(totals.submitted, CALLS, "round {round}");
            assert_eq!(totals.ended(), CALLS, "round {round}");
            assert_eq!((status.in_flight, status.queued), (0, 0), "round {round}");
            bench.finish().await;
            totals
        });
        all.primary += totals.primary;
        all.refused += totals.refused;
        all.failed += totals.failed;
        all.cancelled += totals.cancelled;
    }
    let least = [all.primary, all.refused, all.failed, all.cancelled];
    assert!(least.iter().all(|count| *count > 50), "{least:?}");
}
