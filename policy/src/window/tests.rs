use std::num::NonZeroU32;

use super::*;

fn count(size: u32) -> Window {
    let size = NonZeroU32::new(size).unwrap();
    Window::new(WindowKind::Count { size }, Time::ZERO)
}

fn seconds(span: u64, buckets: u32) -> Window {
    let kind = WindowKind::Time {
        span: Duration::from_secs(span),
        buckets: NonZeroU32::new(buckets).unwrap(),
    };
    Window::new(kind, Time::ZERO)
}

fn put(window: &mut Window, millis: u64, failed: bool) {
    window.record(
        Time::from_millis(millis),
        failed,
        false,
        Duration::from_millis(100),
    );
}

fn read(window: &Window, millis: u64) -> (u64, u64) {
    let counts = window.counts(Time::from_millis(millis));
    (counts.calls, counts.failures)
}

#[test]
fn brk_2_a_count_window_drops_the_oldest_for_each_new_one() {
    let mut window = count(4);
    for failed in [true, false, false, false] {
        put(&mut window, 0, failed);
    }
    assert_eq!(read(&window, 0), (4, 1));
    put(&mut window, 0, false);
    assert_eq!(read(&window, 0), (4, 0));
    let total = window.counts(Time::ZERO).elapsed_total;
    assert_eq!(total, Duration::from_millis(400));
}

#[test]
fn brk_2_an_outcome_is_gone_at_exactly_its_span_and_there_just_before() {
    let mut window = seconds(10, 10);
    put(&mut window, 0, true);
    assert_eq!(read(&window, 9_999), (1, 1));
    assert_eq!(read(&window, 10_000), (0, 0));
    put(&mut window, 10_000, false);
    assert_eq!(window.sums().calls, 1, "recording slides too");
}

#[test]
fn brk_2_a_bucket_is_forgotten_whole_and_never_too_late() {
    let mut window = seconds(10, 10);
    put(&mut window, 500, true);
    assert_eq!(read(&window, 9_999), (1, 1));
    assert_eq!(read(&window, 10_000), (0, 0));
}

#[test]
fn brk_2_a_long_silence_empties_a_time_window() {
    let mut window = seconds(10, 10);
    put(&mut window, 0, true);
    put(&mut window, 1_000_000_000, false);
    assert_eq!(read(&window, 1_000_000_000), (1, 0));
}

#[test]
fn brk_2_an_earlier_time_lands_in_its_own_bucket() {
    let mut window = seconds(10, 10);
    put(&mut window, 5_000, false);
    put(&mut window, 1_000, true);
    assert_eq!(read(&window, 5_000), (2, 1));
    assert_eq!(read(&window, 11_000), (1, 0));
    put(&mut window, 30_000, false);
    put(&mut window, 1_000, true);
    assert_eq!(read(&window, 30_000), (1, 0), "not remembered");
}

#[test]
fn brk_2_a_tumbling_window_starts_from_zero_at_each_multiple() {
    let kind = WindowKind::Tumbling {
        span: Duration::from_secs(30),
    };
    let mut window = Window::new(kind, Time::ZERO);
    put(&mut window, 29_999, true);
    assert_eq!(read(&window, 29_999), (1, 1));
    assert_eq!(read(&window, 30_000), (0, 0));
}

#[test]
fn brk_2_a_success_ends_the_run_of_a_consecutive_window() {
    let mut window = Window::new(WindowKind::Consecutive, Time::ZERO);
    put(&mut window, 0, true);
    assert_eq!(read(&window, 0), (1, 1));
    put(&mut window, 0, false);
    assert_eq!(read(&window, 0), (2, 0));
    window.clear(Time::ZERO);
    assert_eq!(read(&window, 0), (0, 0));
}

#[test]
fn brk_2_successes_in_one_go_equal_successes_one_by_one() {
    for mut one_by_one in [count(4), seconds(10, 10), count(100)] {
        put(&mut one_by_one, 0, true);
        let mut at_once = one_by_one.clone();
        for _ in 0..6 {
            one_by_one.record(Time::from_millis(2_500), false, false, Duration::ZERO);
        }
        at_once.record_successes(Time::from_millis(2_500), 6);
        for millis in [2_500, 9_999, 10_000, 12_000] {
            let now = Time::from_millis(millis);
            assert_eq!(at_once.counts(now), one_by_one.counts(now));
        }
    }
}

#[test]
fn a_cancelled_call_stands_beside_the_calls() {
    let mut window = count(2);
    put(&mut window, 0, true);
    window.record_cancelled(Time::ZERO);
    window.record_cancelled(Time::ZERO);
    let counts = window.counts(Time::ZERO);
    assert_eq!((counts.calls, counts.cancelled), (0, 2));
    assert_eq!(window.run(), (1, 2));
}

#[test]
fn brk_2_an_earlier_outcome_is_forgotten_with_its_own_bucket() {
    for (millis, gone) in [(1_000, 11_000), (2_000, 12_000), (2_500, 12_000)] {
        let mut window = seconds(10, 10);
        put(&mut window, 5_000, false);
        put(&mut window, millis, true);
        assert_eq!(read(&window, gone - 1), (2, 1), "{millis}");
        assert_eq!(read(&window, gone), (1, 0), "{millis}");
    }
    let mut window = seconds(10, 10);
    put(&mut window, 10_000, false);
    put(&mut window, 500, true);
    assert_eq!(read(&window, 10_000), (1, 0), "its bucket is gone");
    put(&mut window, 1_000, true);
    assert_eq!(read(&window, 10_000), (2, 1), "this one is the last");
}

#[test]
fn brk_2_a_count_window_keeps_durations_up_to_sixty_one_bits() {
    let mut window = count(2);
    window.record(Time::ZERO, true, true, Duration::MAX);
    let counts = window.counts(Time::ZERO);
    assert_eq!(counts.elapsed_total, Duration::from_nanos(u64::MAX >> 3));
    assert_eq!((counts.calls, counts.failures, counts.slow), (1, 1, 1));
}
