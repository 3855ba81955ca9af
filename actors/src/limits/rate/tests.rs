//! Rules LIM-2 and LIM-3, tested on the rate limit itself.

use super::*;

mod line;
mod shared;

fn limit(rate: f64, burst: u32, max_wait: u64) -> RateLimit {
    let settings = RateLimitSettings {
        rate,
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(burst).unwrap(),
        max_wait: Duration::from_millis(max_wait),
    };
    RateLimit::new(&settings, Clock::tokio())
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// Lets 20 calls enter a limit of five a second, with a burst of five and a wait of one second.
async fn assert_paced(limit: RateLimit) {
    let begin = limit.clock.now();
    let calls = (0..20).map(|_| async {
        let entered = limit.enter(ONE, None).await;
        (entered, limit.clock.now().since(begin).as_millis())
    });
    let ends = futures_util::future::join_all(calls).await;
    let mut expected = vec![(Ok(()), 0); 5];
    expected.extend((1..=5).map(|turn| (Ok(()), turn * 200)));
    let refused = TooFast::NotBefore(Duration::from_millis(1_200));
    expected.extend(vec![(Err(refused), 0); 10]);
    assert_eq!(ends, expected);
}

#[tokio::test(start_paused = true)]
async fn lim_2_a_burst_goes_out_and_the_rest_is_paced_in_order() {
    assert_paced(limit(5.0, 5, 1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn lim_3_a_weight_takes_its_units_and_too_much_never_goes() {
    let limit = limit(10.0, 10, 1_000);
    let weight = |units| NonZeroU32::new(units).unwrap();
    assert!(limit.try_enter(weight(8), limit.clock.now()));
    assert!(!limit.try_enter(weight(3), limit.clock.now()));
    assert!(limit.try_enter(weight(2), limit.clock.now()));
    let begin = limit.clock.now();
    assert_eq!(limit.enter(weight(5), None).await, Ok(()));
    assert_eq!(limit.clock.now().since(begin).as_millis(), 500);
    assert_eq!(limit.enter(weight(11), None).await, Err(TooFast::TooHeavy));
}

#[tokio::test(start_paused = true)]
async fn lim_2_who_leaves_the_line_lets_the_others_move_up() {
    let limit = limit(1.0, 1, 3_000);
    assert!(limit.try_enter(ONE, limit.clock.now()));
    let mut first = Box::pin(limit.enter(ONE, None));
    let mut second = Box::pin(limit.enter(ONE, None));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    let mut third = Box::pin(limit.enter(ONE, None));
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    let refused = TooFast::NotBefore(Duration::from_secs(4));
    assert_eq!(limit.enter(ONE, None).await, Err(refused));
    drop(first);
    let begin = limit.clock.now();
    let fourth = limit.enter(ONE, None);
    let (second, third, fourth) = tokio::join!(second, third, fourth);
    assert_eq!((second, third, fourth), (Ok(()), Ok(()), Ok(())));
    assert_eq!(limit.clock.now().since(begin).as_secs(), 3);
    assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn lim_2_whose_turn_comes_at_the_deadline_is_refused_at_once() {
    let limit = limit(1.0, 1, 60_000);
    assert!(limit.try_enter(ONE, limit.clock.now()));
    let at = |millis| Some(limit.clock.now().after(Duration::from_millis(millis)));
    let refused = Err(TooFast::NotBefore(Duration::from_secs(1)));
    assert_eq!(limit.enter(ONE, at(1_000)).await, refused);
    assert_eq!(limit.enter(ONE, at(1_001)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn lim_3_too_heavy_is_refused_however_heavy_it_is() {
    // A unit takes ten seconds to come back: counted in nanoseconds, the weight would overflow.
    let limit = limit(0.1, 10, 1_000);
    assert!(!limit.try_enter(NonZeroU32::MAX, limit.clock.now()));
    assert_eq!(
        limit.enter(NonZeroU32::MAX, None).await,
        Err(TooFast::TooHeavy)
    );
    assert!(limit.try_enter(NonZeroU32::new(10).unwrap(), limit.clock.now()));
}

#[test]
fn lim_3_the_slowest_rate_is_no_panic() {
    for (rate, per, burst) in [(0.001, 365, 1), (1.0, 365, 1_000), (0.0, 1, u32::MAX)] {
        let settings = RateLimitSettings {
            rate,
            per: Duration::from_secs(per * 24 * 60 * 60),
            burst: NonZeroU32::new(burst).unwrap(),
            max_wait: Duration::ZERO,
        };
        let limit = RateLimit::new(&settings, Clock::real());
        assert!(limit.try_enter(limit.burst(), limit.clock.now()));
        assert!(!limit.try_enter(ONE, limit.clock.now()));
    }
}

#[tokio::test(start_paused = true)]
async fn lim_2_what_timers_are_late_adds_up_in_the_forecast_too() {
    // A unit of a third of a second, and a timer with millisecond resolution.
    let limit = limit(3.0, 1, 60_000);
    assert!(limit.try_enter(ONE, limit.clock.now()));
    let deadline = Some(limit.clock.now().after(Duration::from_secs(10)));
    let calls = (0..40).map(|_| async {
        let asked = limit.clock.now();
        let entered = limit.enter(ONE, deadline).await;
        (entered, asked, limit.clock.now())
    });
    let ends = futures_util::future::join_all(calls).await;
    let good = ends.iter().filter(|(entered, ..)| entered.is_ok()).count();
    assert_eq!(good, 29, "one each 334 ms, and none at ten seconds");
    for (entered, asked, ended) in ends {
        match entered {
            Ok(()) => assert!(Some(ended) < deadline, "{ended}"),
            Err(_) => assert_eq!(ended, asked, "refused at once"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lim_2_a_thread_that_was_held_up_makes_nobody_start_after_its_deadline() {
    let limit = limit(1.0, 1, 60_000);
    assert!(limit.try_enter(ONE, limit.clock.now()));
    let at = |millis| Some(limit.clock.now().after(Duration::from_millis(millis)));
    let mut first = Box::pin(limit.enter(ONE, at(1_500)));
    let mut second = Box::pin(limit.enter(ONE, at(2_400)));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    tokio::time::advance(Duration::from_millis(1_499)).await;
    assert_eq!(first.await, Ok(()));
    let refused = TooFast::NotBefore(Duration::from_secs(1));
    assert_eq!(second.await, Err(refused), "it would be 2,499, and late");
    assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
    // The units it did not take are available to the next caller.
    let third = limit.enter(ONE, at(1_001));
    assert_eq!(third.await, Ok(()));
}
