//! Random histories of three replicas, and what no history may break.

use std::time::Duration;

use proptest::prelude::*;

use super::board::{self, Fleet};
use crate::{Breaker, Class, Outcome, State};

#[derive(Debug, Clone)]
enum Step {
    Call(usize),
    Finish(usize, bool),
    Deliver(usize),
    Answer(usize),
    Connect(usize, bool),
    Pass(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0_usize..3;
    let finish = (which.clone(), prop::bool::weighted(0.3));
    let span = prop::sample::select(vec![10_u32, 100, 300, 1_000, 3_500]);
    let step = prop_oneof![
        8 => which.clone().prop_map(Step::Call),
        8 => finish.prop_map(|(one, good)| Step::Finish(one, good)),
        8 => which.clone().prop_map(Step::Deliver),
        3 => which.clone().prop_map(Step::Answer),
        1 => (which, any::<bool>()).prop_map(|(one, connects)| Step::Connect(one, connects)),
        4 => span.prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..250)
}

/// Three connected replicas after a history. Each step asserts FLT-3, FLT-5, FLT-7 and FLT-15.
fn after(steps: Vec<Step>) -> Fleet {
    let mut fleet = Fleet::new(3);
    for which in 0..3 {
        fleet.connect(which, true);
    }
    for step in steps {
        match step {
            Step::Call(one) => fleet.call(one),
            Step::Finish(one, good) => drop(fleet.finish(one, good)),
            Step::Deliver(one) => fleet.deliver(one),
            Step::Answer(one) => fleet.answer(one),
            Step::Connect(one, connects) => fleet.connect(one, connects),
            Step::Pass(millis) => fleet.pass(millis),
        }
    }
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flt_7_a_dependency_that_is_well_is_closed_everywhere_soon_whatever_happened(steps in steps()) {
        let mut fleet = after(steps);
        for which in 0..3 {
            fleet.connect(which, true);
        }
        // From now on each call succeeds at once, and the board is fast.
        for _ in 0..100 {
            for which in 0..3 {
                fleet.call(which);
                fleet.catch_up(which);
                fleet.call(which);
                while fleet.finish(which, true) {}
            }
            fleet.pass(100);
        }
        for one in &fleet.replicas {
            prop_assert_eq!(one.breaker.state(), State::Closed, "{:?}", one.machine);
        }
    }

    #[test]
    fn flt_1_without_a_board_each_call_goes_as_without_a_fleet(
        calls in prop::collection::vec((prop::bool::weighted(0.4), 0_u32..400), 1..100),
    ) {
        let mut fleet = Fleet::new(1);
        let mut alone = Breaker::new(board::alone(), fleet.now);
        for (is_good, wait) in calls {
            let class = if is_good { Class::Success } else { Class::Failure };
            let outcome = Outcome::new(class, Duration::from_millis(1));
            let admitted = alone.admit(fleet.now);
            let is_admitted = admitted.is_ok();
            if let Ok(permit) = admitted {
                alone.record(fleet.now, permit, &outcome, &mut || 0.0);
            }
            fleet.call(0);
            prop_assert_eq!(fleet.finish(0, is_good), is_admitted);
            prop_assert_eq!(fleet.replicas[0].breaker.state(), alone.state());
            fleet.pass(wait);
        }
    }
}
