//! Rules LLM-19 and LLM-20, tested on the limit itself.

use std::num::NonZeroU64;

use futures_util::future::join_all;

use super::*;

fn limit(rate: u64, per_secs: u64, burst: u64, max_wait_secs: u64) -> MeteredLimit {
    let settings = MeterSettings {
        rate: NonZeroU64::new(rate).unwrap(),
        per: Duration::from_secs(per_secs),
        burst: NonZeroU64::new(burst).unwrap(),
    };
    let max_wait = Duration::from_secs(max_wait_secs);
    MeteredLimit::new(settings, max_wait, Clock::tokio())
}

fn own(limit: &MeteredLimit) -> &SharedMeter {
    match &limit.0 {
        MeterKind::Own(meter) => meter,
        MeterKind::Fleet(_) => unreachable!("it is of this replica alone"),
    }
}

#[tokio::test(start_paused = true)]
async fn llm_19_item_25_ten_go_at_once_and_a_refund_lets_the_others_go() {
    let limit = limit(30_000, 60, 30_000, 20);
    let begin = own(&limit).clock.now();
    let calls = (0..20).map(|_| async {
        let share = limit.reserve(3_000, None).await;
        let at = own(&limit).clock.now().since(begin).as_secs();
        (share, at)
    });
    let mut ends = join_all(calls).await;
    let waits: Vec<_> = ends
        .iter()
        .map(|(share, at)| (share.is_ok(), *at))
        .collect();
    let mut expected = vec![(true, 0); 10];
    // A call's 3,000 come back in 6 s; the fourth waiter would wait for longer than 20 s.
    expected.extend([(true, 6), (true, 12), (true, 18)]);
    expected.extend([(false, 0); 7]);
    assert_eq!(waits, expected);
    let refusal = ends.pop().unwrap().0.unwrap_err();
    assert_eq!(refusal, MeterRefusal::NotBefore(Duration::from_secs(24)));
    // 500 of each were used.
    for (share, _) in ends {
        if let Ok(share) = share {
            assert_eq!(share.amount(), 3_000);
            share.settle(500);
        }
    }
    assert_eq!(limit.reserved(), 0);
    // As if only these had been taken: since second 12 the rest has run over.
    assert_eq!(limit.available(), 29_500);
}

#[tokio::test(start_paused = true)]
async fn llm_19_a_refund_wakes_the_first_waiter() {
    let limit = limit(1, 1, 100, 60);
    let begin = own(&limit).clock.now();
    let first = limit.reserve(100, None).await.unwrap();
    let (waited, ()) = tokio::join!(limit.reserve(50, None), async {
        tokio::task::yield_now().await;
        first.give_back();
    });
    assert_eq!(waited.unwrap().amount(), 50);
    assert_eq!(own(&limit).clock.now(), begin);
}

#[tokio::test(start_paused = true)]
async fn llm_19_a_debt_is_waited_for_and_can_end_the_patience() {
    let limit = limit(10, 1, 100, 20);
    let begin = own(&limit).clock.now();
    let first = limit.reserve(100, None).await.unwrap();
    let (short, long, ()) = tokio::join!(limit.reserve(20, None), limit.reserve(50, None), async {
        tokio::task::yield_now().await;
        first.settle(250);
    });
    // 150 are owed: 20 more come after 17 s, and 50 more after 22 s.
    assert!(short.is_ok());
    assert_eq!(own(&limit).clock.now().since(begin).as_secs(), 17);
    let refusal = long.unwrap_err();
    assert_eq!(refusal, MeterRefusal::NotBefore(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn llm_19_what_is_dropped_counts_as_used_and_a_waiter_that_leaves_as_nothing() {
    let limit = limit(10, 1, 100, 20);
    drop(limit.reserve(100, None).await.unwrap());
    assert_eq!((limit.reserved(), limit.available()), (0, 0));
    let mut waiter = Box::pin(limit.reserve(100, None));
    assert!(futures_util::poll!(waiter.as_mut()).is_pending());
    let mut behind = Box::pin(limit.reserve(100, None));
    assert!(futures_util::poll!(behind.as_mut()).is_pending());
    drop(waiter);
    let begin = own(&limit).clock.now();
    assert!(behind.await.is_ok());
    assert_eq!(own(&limit).clock.now().since(begin).as_secs(), 10);
    assert_eq!(own(&limit).queue.acquire().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn llm_20_too_much_and_too_late_are_refused_at_once() {
    let limit = limit(10, 1, 100, 20);
    let begin = own(&limit).clock.now();
    let never = limit.reserve(101, None).await.unwrap_err();
    let expected = MeterRefusal::TooMuch {
        asked: 101,
        burst: 100,
    };
    assert_eq!(never, expected);
    let _first = limit.reserve(100, None).await.unwrap();
    let deadline = Some(begin.after(Duration::from_millis(999)));
    let late = limit.reserve(10, deadline).await.unwrap_err();
    assert_eq!(late, MeterRefusal::NotBefore(Duration::from_secs(1)));
    assert_eq!(own(&limit).clock.now(), begin);
    let settings = *own(&limit).queue.acquire().meter.settings();
    let faster = MeterSettings {
        rate: NonZeroU64::new(1_000).unwrap(),
        ..settings
    };
    limit.change(faster, Duration::from_secs(10));
    assert!(limit.reserve(10, deadline).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn call_9_a_call_behind_others_waits_no_longer_than_its_own_time() {
    let limit = limit(1, 1, 10, 600);
    let begin = own(&limit).clock.now();
    let held = limit.reserve(10, None).await.unwrap();
    let first = limit.reserve(10, None);
    let second = async {
        tokio::task::yield_now().await;
        let deadline = begin.after(Duration::from_secs(15));
        let refused = limit.reserve(1, Some(deadline)).await;
        (refused, own(&limit).clock.now().since(begin))
    };
    let debt = async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        // The first waits for a minute and a half more, and has the turn meanwhile.
        held.settle(100);
    };
    let (first, (refused, at), ()) = tokio::join!(first, second, debt);
    assert!(matches!(refused, Err(MeterRefusal::NotBefore(_))));
    assert_eq!(at, Duration::from_secs(15));
    assert!(first.is_ok());
}

#[tokio::test(start_paused = true)]
async fn llm_19_what_goes_out_for_nobody_who_tells_is_used() {
    let limit = limit(1, 1_000, 100, 0);
    let call = MeteredCall::new([(limit.clone(), 40)]);
    let unused = call.reserve(None).await.unwrap();
    drop(unused.into_shares());
    assert_eq!(limit.available(), 60);
    drop(call.reserve(None).await.unwrap());
    assert_eq!(limit.available(), 60, "what has not gone out is given back");
}

#[tokio::test(start_paused = true)]
async fn flt_13_without_a_fleet_a_shared_limit_is_one_of_this_replica() {
    let settings = MeterSettings {
        rate: NonZeroU64::new(600).unwrap(),
        per: Duration::from_secs(60),
        burst: NonZeroU64::new(600).unwrap(),
    };
    let max_wait = Duration::from_secs(20);
    let shared = SharedLimit::Metered(settings, max_wait);
    let share = Arc::new(RateShare::new(shared, Clock::tokio(), 1));
    let limit = MeteredLimit::of_fleet(share);
    let clock = Clock::tokio();
    let too_much = MeterRefusal::TooMuch {
        asked: 601,
        burst: 600,
    };
    assert_eq!(limit.reserve(601, None).await.unwrap_err(), too_much);
    let free = limit.reserve(0, None).await.unwrap();
    let held = limit.reserve(500, None).await.unwrap();
    assert_eq!((limit.reserved(), limit.available()), (500, 100));
    assert_eq!(limit.wait_for(200), Ok(Duration::from_secs(10)));
    let refusal = limit.reserve(400, None).await.unwrap_err();
    assert_eq!(refusal, MeterRefusal::NotBefore(Duration::from_secs(30)));
    let begin = clock.now();
    // A refund wakes the call that waits.
    let waits = limit.reserve(200, None);
    let refund = async {
        clock.sleep_until(begin.after(Duration::from_secs(1))).await;
        held.settle(300);
    };
    let (waited, ()) = tokio::join!(waits, refund);
    assert_eq!(clock.now().since(begin), Duration::from_secs(1));
    waited.unwrap().settle(350);
    free.give_back();
    assert_eq!(limit.reserved(), 0);
    // 600 and ten less 300 and 350.
    assert_eq!((limit.available(), limit.owed()), (0, 640));
}
