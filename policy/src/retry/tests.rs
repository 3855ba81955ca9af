use std::num::NonZeroU32;

use super::*;
use crate::{BackoffSettings, BudgetSettings, RetryJitter, Symptoms};

const MS: Duration = Duration::from_millis(1);

fn settings() -> RetrySettings {
    RetrySettings {
        max_attempts: NonZeroU32::new(3).unwrap(),
        backoff: BackoffSettings {
            jitter: RetryJitter::None,
            ..BackoffSettings::default()
        },
        ..RetrySettings::default()
    }
}

fn attempt(number: u32, end: AttemptEnd) -> Attempt {
    Attempt {
        number,
        refusals: 0,
        end,
        executed: Executed::Maybe,
        idempotent: true,
        retry_after: None,
        symptom: None,
        waited: None,
        paused: None,
    }
}

const FAILED: AttemptEnd = AttemptEnd::Ended(Class::Failure);

fn decide(settings: &RetrySettings, attempt: &Attempt) -> RetryDecision {
    Retry::new(settings, None).decide(Time::ZERO, attempt, None, &mut || 0.5)
}

#[test]
fn a_failure_is_tried_again_with_growing_waits_until_the_attempts_are_used_up() {
    let settings = settings();
    let again = |after| RetryDecision::Again { after };
    assert_eq!(decide(&settings, &attempt(1, FAILED)), again(100 * MS));
    assert_eq!(decide(&settings, &attempt(2, FAILED)), again(200 * MS));
    assert_eq!(
        decide(&settings, &attempt(3, FAILED)),
        RetryDecision::Stop(StopReason::AttemptsUsedUp)
    );
}

#[test]
fn call_7_only_idempotent_calls_are_repeated_after_they_may_have_been_executed() {
    for (executed, idempotent, repeated) in [
        (Executed::No, false, true),
        (Executed::Maybe, false, false),
        (Executed::Yes, false, false),
        (Executed::Maybe, true, true),
        (Executed::Yes, true, true),
    ] {
        let attempt = Attempt {
            executed,
            idempotent,
            ..attempt(1, FAILED)
        };
        let decision = decide(&settings(), &attempt);
        assert_eq!(matches!(decision, RetryDecision::Again { .. }), repeated);
        if !repeated {
            assert_eq!(decision, RetryDecision::Stop(StopReason::NotIdempotent));
        }
    }
}

#[test]
fn what_cannot_end_otherwise_is_never_repeated() {
    for (end, reason) in [
        (AttemptEnd::Ended(Class::Success), StopReason::Succeeded),
        (AttemptEnd::Ended(Class::Rejected), StopReason::Pointless),
        (
            AttemptEnd::Ended(Class::Misconfigured),
            StopReason::Pointless,
        ),
        (AttemptEnd::Ended(Class::Cancelled), StopReason::Pointless),
        (AttemptEnd::RefusedLocally, StopReason::Overloaded),
        (AttemptEnd::RefusedByBreaker, StopReason::BreakerOpen),
    ] {
        let decision = decide(&settings(), &attempt(1, end));
        assert_eq!(decision, RetryDecision::Stop(reason), "{end:?}");
    }
}

#[test]
fn a_refusal_by_the_breaker_is_repeated_only_when_asked_for() {
    let on_open = RetrySettings {
        on_open: true,
        ..settings()
    };
    let refused = |made, refusals| Attempt {
        refusals,
        retry_after: Some(30_000 * MS),
        ..attempt(made, AttemptEnd::RefusedByBreaker)
    };
    let again = |after| RetryDecision::Again { after };
    assert_eq!(decide(&on_open, &refused(0, 1)), again(100 * MS));
    assert_eq!(decide(&on_open, &refused(0, 2)), again(200 * MS));
    let too_often = RetryDecision::Stop(StopReason::RefusedTooOften);
    assert_eq!(decide(&on_open, &refused(0, 3)), too_often);
}

#[test]
fn lim_4_a_refusal_by_the_breaker_is_no_attempt() {
    let on_open = RetrySettings {
        on_open: true,
        ..settings()
    };
    let two = Retry::new(&on_open, None).at_most(NonZeroU32::new(2).unwrap());
    let decide = |made, refusals, end| {
        let attempt = Attempt {
            refusals,
            ..attempt(made, end)
        };
        let decision = two.decide(Time::ZERO, &attempt, None, &mut || 0.5);
        matches!(decision, RetryDecision::Again { .. })
    };
    let refused = AttemptEnd::RefusedByBreaker;
    assert!(decide(1, 0, FAILED) && decide(1, 2, refused) && decide(1, 2, FAILED));
    // Both bounds hold.
    assert!(!decide(2, 2, FAILED) && !decide(1, 3, refused) && !decide(2, 1, refused));
}

#[test]
fn lim_1_a_hint_is_waited_for_in_full() {
    let throttled = Attempt {
        retry_after: Some(7_000 * MS),
        ..attempt(1, AttemptEnd::Ended(Class::Throttled))
    };
    let again = |after| RetryDecision::Again { after };
    assert_eq!(decide(&settings(), &throttled), again(7_000 * MS));
    let deaf = RetrySettings {
        respect_retry_after: false,
        ..settings()
    };
    assert_eq!(decide(&deaf, &throttled), again(100 * MS));
}

#[test]
fn lim_1_a_pause_is_waited_out_whether_hints_are_respected_or_not() {
    for respect_retry_after in [true, false] {
        let settings = RetrySettings {
            respect_retry_after,
            backoff: BackoffSettings::default(),
            ..settings()
        };
        let paused = Attempt {
            retry_after: Some(3_000 * MS),
            paused: Some(7_000 * MS),
            ..attempt(1, FAILED)
        };
        let after = 7_050 * MS;
        assert_eq!(
            decide(&settings, &paused),
            RetryDecision::Again { after },
            "with half of its own spread on top"
        );
    }
}

#[test]
fn lim_2_no_wait_reaches_the_deadline() {
    let settings = settings();
    let at = |deadline| {
        Retry::new(&settings, Some(Time::from_millis(deadline))).decide(
            Time::from_millis(50),
            &attempt(1, FAILED),
            None,
            &mut || 0.5,
        )
    };
    assert_eq!(at(151), RetryDecision::Again { after: 100 * MS });
    assert_eq!(at(150), RetryDecision::Stop(StopReason::DeadlineTooClose));
}

#[test]
fn lim_2_a_call_without_a_deadline_waits_for_no_hint_of_a_day() {
    let settings = settings();
    let after = |hint: Duration, retry: Retry<'_>| {
        let throttled = Attempt {
            retry_after: Some(hint),
            ..attempt(1, AttemptEnd::Ended(Class::Throttled))
        };
        retry.decide(Time::ZERO, &throttled, None, &mut || 0.0)
    };
    let endless = Retry::new(&settings, None);
    let seconds = Duration::from_secs;
    let (soon, late) = (seconds(10), seconds(11));
    assert_eq!(after(soon, endless), RetryDecision::Again { after: soon });
    let too_long = RetryDecision::Stop(StopReason::WaitTooLong);
    assert_eq!(after(late, endless), too_long);
    let again = RetryDecision::Again { after: late };
    assert_eq!(after(late, endless.patient(late)), again);
    let in_a_day = Time::from_millis(86_400_000);
    assert_eq!(after(late, Retry::new(&settings, Some(in_a_day))), again);
}

#[test]
fn lim_4_a_retry_takes_a_token_and_a_stop_takes_none() {
    let one = BudgetSettings {
        ratio: 0.0,
        floor_per_second: 1,
    };
    let mut budget = Budget::new(&one, Time::ZERO);
    let settings = settings();
    let retry = Retry::new(&settings, None);
    let decide = |number, budget: &mut Budget| {
        retry.decide(
            Time::ZERO,
            &attempt(number, FAILED),
            Some(budget),
            &mut || 0.5,
        )
    };
    let used_up = RetryDecision::Stop(StopReason::AttemptsUsedUp);
    assert_eq!(decide(3, &mut budget), used_up);
    assert!(matches!(
        decide(1, &mut budget),
        RetryDecision::Again { .. }
    ));
    let none_left = RetryDecision::Stop(StopReason::BudgetUsedUp);
    assert_eq!(decide(1, &mut budget), none_left);
}

/// Only the symptoms listed in `retry.on` are retried.
#[test]
fn item_80_only_named_symptoms_are_tried_again() {
    let settings = RetrySettings {
        on: Some(Symptoms::from([Symptom::Timeout, Symptom::Status(503)])),
        ..settings()
    };
    for (symptom, again) in [
        (Some(Symptom::Timeout), true),
        (Some(Symptom::Status(503)), true),
        (Some(Symptom::Status(500)), false),
        (None, false),
    ] {
        let failed = Attempt {
            symptom,
            ..attempt(1, AttemptEnd::Ended(Class::Failure))
        };
        let decision = Retry::new(&settings, None).decide(Time::ZERO, &failed, None, &mut || 0.0);
        assert_eq!(
            matches!(decision, RetryDecision::Again { .. }),
            again,
            "{symptom:?}"
        );
    }
}

#[test]
fn lim_4_a_call_may_have_another_limit_of_attempts_than_the_settings() {
    let settings = settings();
    let decide = |most: u32, number: u32| {
        let most = NonZeroU32::new(most).unwrap();
        let retry = Retry::new(&settings, None).at_most(most);
        retry.decide(Time::ZERO, &attempt(number, FAILED), None, &mut || 0.5)
    };
    let used_up = RetryDecision::Stop(StopReason::AttemptsUsedUp);
    assert_eq!((decide(2, 2), decide(5, 5)), (used_up, used_up));
    for (most, number) in [(2, 1), (5, 4)] {
        assert!(matches!(decide(most, number), RetryDecision::Again { .. }));
    }
}
