//! The meter beside plain arithmetic: within any span of time, no more is used than the rate and
//! the burst allow, and what was not settled yet exceeds its reservations by.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use std::num::NonZeroU64;
use std::time::Duration;

use breakerbox_policy::{Meter, MeterRefusal, MeterSettings, Reservation, Time};
use proptest::collection::vec;
use proptest::prelude::*;

/// A call that was let through.
#[derive(Debug, Clone, Copy)]
struct LetThrough {
    at: u64,
    reserved: u64,
    /// The used amount; `None` while it runs.
    used: Option<u64>,
}

/// A meter with the history of its calls.
struct Metered {
    meter: Meter,
    settings: MeterSettings,
    now: u64,
    calls: Vec<LetThrough>,
    running: Vec<(usize, Reservation)>,
}

impl Metered {
    fn new(rate: u64, per: Duration, burst: u64) -> Self {
        let settings = MeterSettings {
            rate: NonZeroU64::new(rate).unwrap(),
            per,
            burst: NonZeroU64::new(burst).unwrap(),
        };
        Self {
            meter: Meter::new(settings, Time::ZERO),
            settings,
            now: 0,
            calls: Vec::new(),
            running: Vec::new(),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Tries a call, and checks the sums of all spans that end with it.
    fn reserve(&mut self, amount: u64) {
        match self.meter.try_reserve(Time::from_millis(self.now), amount) {
            Ok(reservation) => {
                self.calls.push(LetThrough {
                    at: self.now,
                    reserved: amount,
                    used: None,
                });
                self.running.push((self.calls.len() - 1, reservation));
                if amount > 0 {
                    self.check();
                }
            }
            Err(MeterRefusal::NotBefore(wait)) => {
                let mut later = self.meter.clone();
                let at = Time::from_millis(self.now).after(wait);
                assert!(later.try_reserve(at, amount).is_ok(), "it waited in vain");
                if let Some(before) = wait.checked_sub(Duration::from_nanos(1)) {
                    let mut earlier = self.meter.clone();
                    let at = Time::from_millis(self.now).after(before);
                    assert!(
                        earlier.try_reserve(at, amount).is_err(),
                        "it waited too long"
                    );
                }
            }
            Err(MeterRefusal::TooMuch { asked, burst }) => assert!(asked > burst),
        }
    }

    fn settle(&mut self, which: usize, used: u64) {
        if self.running.is_empty() {
            return;
        }
        let (call, reservation) = self.running.remove(which % self.running.len());
        self.meter
            .settle(Time::from_millis(self.now), reservation, used);
        self.calls[call].used = Some(used);
        let reserved: u64 = self.running.iter().map(|(_, one)| one.amount()).sum();
        assert_eq!(self.meter.reserved(), reserved);
    }

    /// Checks each span that ends now. A call that runs counts with its reservation.
    fn check(&self) {
        let per = self.settings.per.as_millis();
        let mut used = 0;
        for call in self.calls.iter().rev() {
            used += u128::from(call.used.unwrap_or(call.reserved));
            let passed = u128::from(self.now - call.at);
            let allowed = passed * u128::from(self.settings.rate.get())
                + u128::from(self.settings.burst.get()) * per;
            assert!(
                used * per <= allowed,
                "{used} used in {passed} ms, {:?}, {:?}",
                self.settings,
                self.calls
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Reserve(u64),
    Settle(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0u64..3_000).prop_map(Step::Pass),
        3 => (0u64..120).prop_map(Step::Reserve),
        3 => (any::<usize>(), 0u64..250).prop_map(|(which, used)| Step::Settle(which, used)),
    ];
    vec(step, 0..150)
}

proptest! {
    #[test]
    fn llm_19_no_span_has_more_than_rate_burst_and_what_runs(
        rate in 1u64..200, burst in 1u64..150, steps in steps(),
    ) {
        let mut metered = Metered::new(rate, Duration::from_secs(1), burst);
        for step in steps {
            match step {
                Step::Pass(millis) => metered.pass(millis),
                Step::Reserve(amount) => metered.reserve(amount),
                Step::Settle(which, used) => metered.settle(which, used),
            }
        }
    }

    #[test]
    fn llm_19_one_call_after_another_stays_within_one_call_of_the_rate(
        calls in vec((1u64..100, 0u64..300, 0u64..2_000), 1..80),
    ) {
        let (rate, burst) = (50, 100);
        let mut metered = Metered::new(rate, Duration::from_secs(1), burst);
        let mut largest = 0;
        for (amount, used, millis) in calls {
            metered.reserve(amount);
            metered.pass(millis / 2);
            metered.settle(0, used);
            metered.pass(millis);
            largest = largest.max(used);
        }
        for (at, first) in metered.calls.iter().enumerate() {
            let mut sum = 0;
            for call in &metered.calls[at..] {
                sum += call.used.unwrap_or(0);
                let allowed = (call.at - first.at) * rate / 1_000 + burst + largest + 1;
                prop_assert!(sum <= allowed, "{sum} > {allowed}");
            }
        }
    }

    #[test]
    fn llm_19_a_refund_at_once_is_whole(
        amounts in vec(1u64..30, 1..60), passed in 0u64..5_000,
    ) {
        let mut metered = Metered::new(20, Duration::from_secs(1), 100);
        metered.reserve(70);
        metered.pass(passed);
        let before = metered.meter.available(Time::from_millis(metered.now));
        for amount in amounts {
            metered.reserve(amount);
        }
        while metered.running.len() > 1 {
            metered.settle(1, 0);
        }
        let after = metered.meter.available(Time::from_millis(metered.now));
        prop_assert_eq!(before, after);
    }
}

/// Every history of three callers to a bounded length.
#[test]
fn llm_19_every_short_history_keeps_the_bound() {
    let mut count = 0;
    explore(&mut Vec::new(), &mut count);
    assert!(count > 10_000, "{count}");
}

const LONGEST: usize = 7;

fn explore(history: &mut Vec<Step>, count: &mut u64) {
    let mut metered = Metered::new(1, Duration::from_secs(1), 3);
    for step in history.iter() {
        match *step {
            Step::Pass(millis) => metered.pass(millis),
            Step::Reserve(amount) => metered.reserve(amount),
            Step::Settle(which, used) => metered.settle(which, used),
        }
    }
    *count += 1;
    if history.len() == LONGEST {
        return;
    }
    let mut next = vec![Step::Pass(1_000), Step::Pass(2_500)];
    if metered.running.len() < 3 {
        next.extend([1, 3].map(Step::Reserve));
    }
    for which in 0..metered.running.len() {
        next.extend([0, 1, 4].map(|used| Step::Settle(which, used)));
    }
    for step in next {
        history.push(step);
        explore(history, count);
        history.pop();
    }
}
