use super::*;
use crate::Rate;

fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn gradient(initial: u32, max: u32) -> GradientLimit {
    GradientLimit::new(initial, NonZeroU32::MIN, nonzero(max), 1.5)
}

fn settings(rule: AdaptiveRule) -> AdaptiveSettings {
    AdaptiveSettings {
        rule,
        min: nonzero(2),
        initial: nonzero(10),
        idle: Duration::from_secs(30),
    }
}

const AIMD: AdaptiveRule = AdaptiveRule::Aimd {
    backoff: Rate::ZERO,
};
const GRADIENT: AdaptiveRule = AdaptiveRule::Gradient { tolerance: 1.5 };

#[test]
fn an_adaptive_limit_grows_while_used_and_backs_off_at_a_drop() {
    let limit = |initial, max| {
        let max = NonZeroU32::new(max).unwrap();
        AimdLimit::new(initial, NonZeroU32::MIN, max, Rate::new(0.9).unwrap())
    };
    assert_eq!(limit(20, 200).sample(10, false), 21);
    assert_eq!(limit(20, 200).sample(9, false), 20);
    assert_eq!(limit(30, 200).sample(0, true), 27);
    assert_eq!(limit(21, 21).sample(21, false), 21);
    assert_eq!(limit(1, 21).sample(1, true), 1);
}

#[test]
fn a_gradient_limit_grows_by_a_part_of_its_root_and_never_above_its_maximum() {
    let mut limit = gradient(25, 30);
    assert_eq!(limit.sample(25, ms(10), false), 26, "a fifth of five");
    for _ in 0..1000 {
        assert!(limit.sample(30, ms(10), false) <= 30);
    }
    assert_eq!(limit.limit(), 30);
}

#[test]
fn a_gradient_limit_that_is_not_used_learns_nothing_from_good_calls() {
    let mut limit = gradient(20, 200);
    for _ in 0..1000 {
        assert_eq!(limit.sample(9, ms(10), false), 20);
    }
    assert!(limit.sample(10, ms(10), false) >= 20);
    for _ in 0..10 {
        limit.sample(10, ms(10), false);
    }
    assert_eq!(limit.limit(), 21, "half of it is used until then");
}

#[test]
fn a_gradient_limit_falls_while_calls_take_longer_and_comes_back() {
    let mut limit = gradient(100, 100);
    let mut after = |millis, calls| {
        for _ in 0..calls {
            limit.sample(100, ms(millis), false);
        }
        limit.limit()
    };
    assert_eq!(after(10, 300), 100);
    assert_eq!(after(14, 300), 100, "within the tolerance");
    let slow = after(100, 20);
    assert!(slow < 50, "{slow}");
    assert!(slow >= 4, "{slow}");
    assert_eq!(after(10, 600), 100);
}

#[test]
fn a_gradient_limit_is_not_moved_by_one_outlier_nor_by_two_kinds_of_calls() {
    let mut limit = gradient(50, 50);
    for _ in 0..100 {
        limit.sample(50, ms(10), false);
    }
    assert!(limit.sample(50, ms(10_000), false) >= 45);
    let mut limit = gradient(50, 50);
    for number in 0..1000 {
        limit.sample(50, ms(if number % 2 == 0 { 1 } else { 20 }), false);
    }
    assert_eq!(limit.limit(), 50);
}

#[test]
fn a_call_without_a_time_and_tiny_times_break_no_gradient() {
    let mut limit = gradient(10, 40);
    for _ in 0..200 {
        limit.sample(40, Duration::ZERO, false);
    }
    assert_eq!(limit.limit(), 40, "it grows as if all were well");
    for rtt in [Duration::from_nanos(1), Duration::MAX, Duration::ZERO] {
        for _ in 0..50 {
            assert!((4..=40).contains(&limit.sample(40, rtt, false)));
        }
    }
}

#[test]
fn drops_take_a_limit_down_to_its_minimum_and_not_below() {
    let mut limit = GradientLimit::new(40, nonzero(3), nonzero(40), 1.5);
    assert_eq!(limit.sample(0, ms(1), true), 36);
    for _ in 0..100 {
        limit.sample(0, ms(1), true);
    }
    assert_eq!(limit.limit(), 3);
}

#[test]
fn an_adaptive_limit_stays_within_its_bounds_whatever_the_settings_say() {
    for rule in [AIMD, GRADIENT] {
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(5));
        assert_eq!(limit.limit(Time::ZERO), 5, "{rule:?}");
        assert_eq!(limit.sample(Time::ZERO, 5, ms(1), false), 5, "{rule:?}");
        for _ in 0..100 {
            limit.sample(Time::ZERO, 5, ms(1), true);
        }
        assert_eq!(limit.limit(Time::ZERO), 2, "{rule:?}");
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(1));
        assert_eq!(limit.sample(Time::ZERO, 1, ms(1), false), 1, "{rule:?}");
    }
}

#[test]
fn an_idle_limit_goes_back_to_its_beginning_step_by_step() {
    for rule in [AIMD, GRADIENT] {
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(100));
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        for _ in 0..200 {
            limit.sample(at(0), 0, ms(1), true);
        }
        let steps = [(0, 2), (29, 2), (30, 6), (45, 6), (60, 8), (3600, 10)];
        for (seconds, expected) in steps {
            assert_eq!(limit.limit(at(seconds)), expected, "{rule:?} at {seconds}");
        }
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(74));
        for _ in 0..400 {
            limit.sample(at(0), 74, ms(1), false);
        }
        assert_eq!(limit.limit(at(29)), 74, "{rule:?}");
        assert_eq!(limit.limit(at(30)), 42, "{rule:?}");
        // A call restarts the idle period, and learns from the limit at that time.
        let after = limit.sample(at(60), 0, ms(1), false);
        assert_eq!((after, limit.limit(at(89))), (26, 26), "{rule:?}");
        assert_eq!(limit.limit(Time::MAX), 10, "{rule:?}");
    }
}

#[test]
fn cfg_2_new_settings_keep_what_a_limit_has_learnt() {
    for rule in [AIMD, GRADIENT] {
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(100));
        for _ in 0..400 {
            limit.sample(Time::ZERO, 100, ms(1), false);
        }
        assert_eq!(limit.resize(&settings(rule), nonzero(50)), 50, "{rule:?}");
        assert_eq!(limit.resize(&settings(rule), nonzero(80)), 50, "{rule:?}");
    }
    let mut limit = AdaptiveLimit::new(&settings(AIMD), nonzero(100));
    limit.sample(Time::ZERO, 0, ms(1), true);
    assert_eq!(limit.resize(&settings(GRADIENT), nonzero(100)), 10);
}

#[test]
fn an_idle_limit_steps_at_multiples_of_its_idle_time_whenever_it_is_read() {
    for rule in [AIMD, GRADIENT] {
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(100));
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        for _ in 0..200 {
            limit.sample(at(0), 0, ms(1), true);
        }
        for (seconds, expected) in [(45, 6), (59, 6), (60, 8), (90, 9)] {
            assert_eq!(limit.limit(at(seconds)), expected, "{rule:?} at {seconds}");
        }
        let mut limit = AdaptiveLimit::new(&settings(rule), nonzero(100));
        for _ in 0..200 {
            limit.sample(at(0), 0, ms(1), true);
        }
        for (seconds, expected) in [(75, 8), (89, 8), (90, 9)] {
            assert_eq!(limit.limit(at(seconds)), expected, "{rule:?} at {seconds}");
        }
    }
}
