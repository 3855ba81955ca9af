use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO.after(Duration::from_secs(seconds))
}

fn calls(calls: u64, errors: u64) -> CallSums {
    CallSums {
        calls,
        errors,
        ..CallSums::default()
    }
}

fn counts(stretch: &SeriesStretch) -> Vec<Option<(u64, u64)>> {
    counts_of(&stretch.buckets)
}

fn counts_of(buckets: &[Option<CallBucket>]) -> Vec<Option<(u64, u64)>> {
    let all = buckets.iter();
    all.map(|bucket| bucket.map(|bucket| (bucket.calls, bucket.errors)))
        .collect()
}

/// A series that was recorded each 5 s, up to this second.
fn recorded(until: u64, sums: impl Fn(u64) -> CallSums) -> DependencySeries {
    let mut series = DependencySeries::new(Time::ZERO);
    for second in (5..=until).step_by(5) {
        series.record((at(second - 5), at(second)), sums(second));
    }
    series
}

#[test]
fn item_100_a_bucket_holds_what_ended_in_its_own_seconds() {
    let series = recorded(20, |second| calls(second, second / 5));
    assert_eq!(
        counts(&series.hour()),
        [Some((5, 1)), Some((10, 2)), Some((15, 3)), Some((20, 4))]
    );
    assert_eq!(series.hour().begin(), Time::ZERO);
    assert_eq!(counts(&series.day()), [Some((50, 10))]);
}

#[test]
fn item_100_an_hour_and_a_day_are_kept_and_no_more() {
    let two_days = 2 * 24 * 3600;
    let series = recorded(two_days, |second| calls(second % 50, 0));
    let (hour, day) = (series.hour(), series.day());
    assert_eq!((hour.buckets.len(), day.buckets.len()), (720, 1440));
    assert_eq!(hour.begin(), at(two_days - 3600));
    assert_eq!(day.begin(), at(two_days - 24 * 3600));
    // Each bucket has the sums of its own seconds, not of those a round before.
    for (bucket, second) in hour.buckets.iter().zip((two_days - 3595..).step_by(5)) {
        assert_eq!(bucket.unwrap().calls, second % 50, "{second}");
    }
    let whole: u64 = (5..=60).step_by(5).map(|second| second % 50).sum();
    assert_eq!(day.buckets[0].unwrap().calls, pack_and_open(whole));
}

fn pack_and_open(count: u64) -> u64 {
    open_count(pack_count(count))
}

#[test]
fn item_100_time_without_a_sample_is_a_gap_and_not_a_peak() {
    let mut series = recorded(10, |_| calls(7, 0));
    // The process slept for 30 s.
    series.record((at(10), at(40)), calls(1000, 1000));
    series.record((at(40), at(45)), calls(8, 1));
    let hour = counts(&series.hour());
    let unknown = [None; 6];
    assert_eq!(&hour[..2], [Some((7, 0)), Some((7, 0))]);
    assert_eq!(&hour[2..8], unknown);
    assert_eq!(&hour[8..], [Some((8, 1))]);
    // Half a minute is no gap among minutes.
    let kept = (pack_and_open(1022), pack_and_open(1001));
    assert_eq!(counts(&series.day()), [Some(kept)]);
    // A gap that is longer than the whole ring leaves nothing of what was before.
    series.record((at(45), at(200_000)), calls(1, 1));
    let (hour, day) = (series.hour(), series.day());
    assert_eq!((hour.buckets.len(), day.buckets.len()), (720, 1440));
    assert!(hour.buckets[..719].iter().all(Option::is_none));
    assert!(day.buckets[..1439].iter().all(Option::is_none));
}

#[test]
fn item_100_counts_are_exact_when_small_and_close_when_large() {
    for count in 0..64 {
        assert_eq!(pack_and_open(count), count);
    }
    let mut count = 64_u64;
    while count < 1 << 35 {
        let kept = pack_and_open(count);
        assert!(kept.abs_diff(count) * 1000 <= count * 16, "{count} {kept}");
        assert!(pack_and_open(count + 1) >= kept, "{count}");
        count += count / 37 + 1;
    }
    assert!(pack_and_open(u64::MAX) >= 1 << 35);
    assert!(pack_count(u64::MAX) <= 0x3ff);
    let most = CallSums {
        calls: u64::MAX,
        errors: u64::MAX,
        fallback: u64::MAX,
        attempts: u64::MAX,
        spent: Duration::MAX,
    };
    assert!(PackedBucket::new(&most).open().is_some());
}

#[test]
fn item_100_one_error_among_many_is_kept_and_all_errors_are_all() {
    for calls_made in [1, 5, 63, 64, 99, 1000, 123_457, 9_999_999] {
        let open = |sums: CallSums| PackedBucket::new(&sums).open().unwrap();
        let all = open(calls(calls_made, calls_made));
        assert_eq!(all.errors, all.calls);
        assert_eq!(open(calls(calls_made, 1)).errors, 1);
        assert_eq!(open(calls(calls_made, 0)).errors, 0);
        let almost = open(calls(calls_made, calls_made - 1));
        assert!(almost.errors <= almost.calls);
        let by_fallback = |fallback| {
            open(CallSums {
                fallback,
                ..calls(calls_made, 0)
            })
        };
        assert_eq!(by_fallback(0).fallback, 0);
        assert!(by_fallback(1).fallback >= 1);
        let whole = by_fallback(calls_made);
        assert_eq!(whole.fallback, whole.calls);
    }
}

#[test]
fn item_100_a_latency_is_kept_within_eight_percent() {
    let mut micros = 10_u64;
    while micros < 900_000_000 {
        let sums = CallSums {
            attempts: 3,
            spent: Duration::from_micros(micros * 3),
            ..CallSums::default()
        };
        let kept = PackedBucket::new(&sums).open().unwrap().latency.unwrap();
        let kept = kept.as_secs_f64() * 1e6;
        let ratio = kept / Duration::from_micros(micros).as_secs_f64() / 1e6;
        assert!((0.92..1.08).contains(&ratio), "{micros} µs became {kept}");
        micros += micros / 7 + 1;
    }
    let none = PackedBucket::new(&calls(3, 3)).open().unwrap();
    assert_eq!(none.latency, None);
}

#[test]
fn item_100_buckets_are_joined_on_the_same_grid_for_all() {
    let mut series = DependencySeries::new(at(25));
    for second in (30..=70).step_by(5) {
        series.record((at(second - 5), at(second)), calls(second, 1));
    }
    let hour = series.hour();
    let (first, joint) = joined((hour.number(), &hour.buckets), 6);
    assert_eq!(first, 0);
    // One bucket before second 30, six up to 60, two after.
    assert_eq!(
        counts_of(&joint),
        [
            Some((30, 1)),
            Some((35 + 40 + 45 + 50 + 55 + 60, 6)),
            Some((pack_and_open(65) + pack_and_open(70), 2))
        ]
    );
}

#[test]
fn item_100_sums_that_fall_began_anew() {
    let before = calls(100, 10);
    assert_eq!(calls(103, 11).since(before), calls(3, 1));
    assert_eq!(calls(3, 1).since(before), calls(3, 1));
}

#[test]
fn item_100_a_hundred_dependencies_take_less_than_a_megabyte() {
    let one = std::mem::size_of::<DependencySeries>()
        + (FINE.1 + COARSE.1) * std::mem::size_of::<PackedBucket>();
    assert!(100 * one < 1_000_000, "{one} bytes each");
}
