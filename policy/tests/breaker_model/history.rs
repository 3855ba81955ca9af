//! Random settings and random histories.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BreakerSettings, CancelledPolicy, Class, HalfOpenLimit, HalfOpenRule, HalfOpenSettings,
    LostProbe, OpenTime, ProbeLease, Rate, WindowKind,
};
use proptest::option;
use proptest::prelude::*;

/// A random step in the history of a breaker.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Admit,
    /// The index of a permit, its class, its duration in tens of milliseconds, and a retry hint.
    Finish(usize, Class, u32, Option<u32>),
    /// Drops a permit without a report.
    Forget(usize),
    Release(usize),
    Successes {
        count: u64,
        stale: bool,
    },
    Overdue(u64),
    Wait(u64),
    Tick,
    Order(Order),
    Reconfigure(BreakerSettings),
    Recover,
}

#[derive(Clone, Debug)]
pub(crate) enum Order {
    Open(Option<u64>),
    Disable(Option<u64>),
    Shadow(Option<u64>),
    Clear,
    Close,
    Reset,
    Park,
    Unpark,
    Trip(Option<u64>),
    Probe,
}

fn few() -> impl Strategy<Value = NonZeroU32> {
    (1_u32..6).prop_map(|number| NonZeroU32::new(number).expect("a setting in its bounds"))
}

fn rate() -> impl Strategy<Value = Rate> {
    prop::sample::select(vec![0.0, 0.2, 0.333_333, 0.5, 0.9, 1.0])
        .prop_map(|fraction| Rate::new(fraction).expect("a setting in its bounds"))
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(|tens| Duration::from_millis(tens * 10))
}

fn window() -> impl Strategy<Value = WindowKind> {
    prop_oneof![
        Just(WindowKind::Consecutive),
        (1_u32..9).prop_map(|size| WindowKind::Count {
            size: NonZeroU32::new(size).expect("a setting in its bounds")
        }),
        (few(), 1_u64..20).prop_map(|(buckets, tens)| WindowKind::Time {
            span: Duration::from_millis(tens * 10) * buckets.get(),
            buckets,
        }),
        millis(1..40).prop_map(|span| WindowKind::Tumbling { span }),
    ]
}

fn half_open() -> impl Strategy<Value = HalfOpenSettings> {
    let rule = prop_oneof![
        3 => few().prop_map(HalfOpenRule::Successes),
        2 => few().prop_map(|results| HalfOpenRule::Rate { results }),
        2 => (few(), few()).prop_map(|(one, other)| HalfOpenRule::KOfN {
            needed: one.min(other),
            of: one.max(other),
        }),
        1 => Just(HalfOpenRule::AutoClose),
    ];
    let limit = (millis(1..60), any::<bool>());
    (
        (few(), option::of(few()), rule, millis(0..40)),
        (any::<bool>(), any::<bool>(), option::weighted(0.2, limit)),
    )
        .prop_map(|((max_calls, max_admitted, rule, probe_lease), rest)| {
            let (frees, cancelled_probe_reopens, limit) = rest;
            HalfOpenSettings {
                max_calls,
                max_admitted,
                rule,
                probe_lease,
                lost_probe: if frees {
                    LostProbe::FreesItsSlot
                } else {
                    LostProbe::Fails
                },
                cancelled_probe_reopens,
                limit: limit.map(|(after, closes)| HalfOpenLimit { after, closes }),
                lease: ProbeLease::Own,
            }
        })
}

pub(crate) fn settings() -> impl Strategy<Value = BreakerSettings> {
    let open = (
        millis(0..30),
        prop::bool::ANY,
        millis(1..90),
        prop::bool::ANY,
    )
        .prop_map(|(base, grows, max, jitter)| OpenTime {
            base,
            factor: if grows { 2.0 } else { 1.0 },
            max,
            jitter: if jitter { 0.5 } else { 0.0 },
        });
    let cancelled = prop_oneof![
        Just(CancelledPolicy::Ignore),
        Just(CancelledPolicy::Failure),
        rate().prop_map(CancelledPolicy::Rate),
    ];
    let rules = (
        option::of(few()),
        option::weighted(0.3, few()),
        option::of(rate()),
        option::weighted(0.4, rate()),
        option::of(Just(Duration::from_millis(20))),
        0_u32..8,
    );
    (window(), rules, open, half_open(), cancelled).prop_map(
        |(window, rules, open, half_open, cancelled)| BreakerSettings {
            window,
            failure_threshold: rules.0,
            consecutive_failures: rules.1,
            failure_rate: rules.2,
            slow_rate: rules.3,
            slow_call: rules.4,
            minimum_calls: rules.5,
            open,
            half_open,
            cancelled,
        },
    )
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        4 => Just(Class::Success),
        4 => Just(Class::Failure),
        1 => Just(Class::Throttled),
        1 => Just(Class::Rejected),
        2 => Just(Class::Cancelled),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    let until = || option::of(0_u64..30);
    prop_oneof![
        1 => until().prop_map(Order::Open),
        1 => until().prop_map(Order::Disable),
        2 => until().prop_map(Order::Shadow),
        3 => Just(Order::Clear),
        1 => Just(Order::Close),
        1 => Just(Order::Reset),
        1 => Just(Order::Park),
        2 => Just(Order::Unpark),
        2 => until().prop_map(Order::Trip),
        2 => Just(Order::Probe),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => Just(Step::Admit),
        14 => (any::<usize>(), class(), 0_u32..4, option::weighted(0.1, 0_u32..60))
            .prop_map(|(which, class, tens, hint)| Step::Finish(which, class, tens, hint)),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => any::<usize>().prop_map(Step::Release),
        2 => (1_u64..6, prop::bool::weighted(0.1))
            .prop_map(|(count, stale)| Step::Successes { count, stale }),
        1 => (0_u64..6).prop_map(Step::Overdue),
        5 => (0_u64..20).prop_map(Step::Wait),
        2 => Just(Step::Tick),
        2 => order().prop_map(Step::Order),
        1 => settings().prop_map(Step::Reconfigure),
        1 => Just(Step::Recover),
    ];
    prop::collection::vec(step, 1..120)
}
