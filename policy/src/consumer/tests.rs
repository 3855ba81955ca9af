use super::*;
use crate::RetryJitter;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn rules() -> MessageRules {
    MessageRules::default()
}

fn retry() -> BackoffSettings {
    BackoffSettings {
        jitter: RetryJitter::None,
        ..BackoffSettings::default()
    }
}

fn arrival() -> MessageArrival {
    MessageArrival {
        deliveries: 1,
        notes: MessageNotes::default(),
        is_idempotent: true,
        age: Duration::ZERO,
        ttl: None,
    }
}

fn ended(kind: MessageCallKind) -> MessageCallEnd {
    MessageCallEnd {
        kind,
        executed: Executed::No,
        executed_by_fallbacks: Executed::No,
        wait: None,
        breaker: BreakerAfter::Closed,
        has_answer_subject: true,
    }
}

const FAILURE: MessageCallKind = MessageCallKind::Ended(Class::Failure);

fn fate(arrival: &MessageArrival, end: &MessageCallEnd) -> MessageFate {
    rules().end(arrival, end, &retry(), &mut || 0.5)
}

fn delay_of(fate: MessageFate) -> Duration {
    match fate {
        MessageFate::Return { delay, .. } => delay,
        other => panic!("it is not given back: {other:?}"),
    }
}

fn notes_of(fate: MessageFate) -> MessageNotes {
    match fate {
        MessageFate::Return { notes, .. } => notes,
        other => panic!("it is not given back: {other:?}"),
    }
}

#[test]
fn msg_5_only_max_failures_with_a_closed_breaker_make_a_dead_letter() {
    let mut message = arrival();
    let end = MessageCallEnd {
        executed: Executed::Yes,
        ..ended(FAILURE)
    };
    for (failures, wait) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
        let fate = fate(&message, &end);
        assert_eq!(delay_of(fate), wait * MS);
        message.notes = notes_of(fate);
        message.deliveries += 1;
        assert_eq!(message.notes.failures, failures);
    }
    assert_eq!(
        fate(&message, &end),
        MessageFate::Dead(DeadReason::Failures)
    );
}

#[test]
fn msg_5_an_outage_is_not_held_against_a_message() {
    for kind in [FAILURE, MessageCallKind::Ended(Class::Misconfigured)] {
        let end = MessageCallEnd {
            breaker: BreakerAfter::NotClosed(Some(SECOND)),
            ..ended(kind)
        };
        let mut message = arrival();
        for returns in 1..100 {
            message.notes = notes_of(fate(&message, &end));
            message.deliveries += 1;
            assert_eq!(message.notes.failures, 0);
            assert_eq!(message.notes.returns, returns);
            assert_eq!(rules().begin(&message), MessageStart::Work { mark: false });
        }
    }
}

#[test]
fn msg_5_a_message_that_failed_as_a_probe_waits_for_the_longest_delay() {
    let end = MessageCallEnd {
        breaker: BreakerAfter::ByProbe,
        ..ended(FAILURE)
    };
    assert_eq!(delay_of(fate(&arrival(), &end)), rules().max_delay);
}

#[test]
fn msg_5_deliveries_without_a_word_are_crashes_and_those_given_back_are_not() {
    let notes = MessageNotes {
        returns: 40,
        ..MessageNotes::default()
    };
    let after = |deliveries| MessageArrival {
        deliveries,
        notes,
        ..arrival()
    };
    assert_eq!(after(41).crashes(), 0);
    let work = MessageStart::Work { mark: false };
    assert_eq!(rules().begin(&after(45)), work);
    let dead = MessageStart::Dead(DeadReason::Crashes);
    assert_eq!(rules().begin(&after(46)), dead);
}

#[test]
fn msg_4_a_delay_follows_from_the_reason_and_is_never_zero() {
    let refused = |breaker, wait| {
        let end = MessageCallEnd {
            wait,
            breaker,
            ..ended(MessageCallKind::Refused)
        };
        delay_of(fate(&arrival(), &end))
    };
    let until_try = BreakerAfter::NotClosed(Some(3 * SECOND));
    assert_eq!(refused(until_try, Some(9 * SECOND)), 3 * SECOND);
    // In half-open the wait is the lease of another probe.
    let half_open = BreakerAfter::NotClosed(None);
    assert_eq!(refused(half_open, Some(10 * SECOND)), 250 * MS);
    let throttled = MessageCallEnd {
        wait: Some(20 * SECOND),
        ..ended(MessageCallKind::Limited)
    };
    assert_eq!(delay_of(fate(&arrival(), &throttled)), 20 * SECOND);
    let long = MessageCallEnd {
        wait: Some(3600 * SECOND),
        ..throttled
    };
    assert_eq!(delay_of(fate(&arrival(), &long)), rules().max_delay);
    let none = MessageCallEnd {
        wait: Some(Duration::ZERO),
        ..throttled
    };
    assert_eq!(delay_of(fate(&arrival(), &none)), LEAST);
    let no_place = ended(MessageCallKind::NoSlotFree);
    assert_eq!(delay_of(fate(&arrival(), &no_place)), 250 * MS);
}

#[test]
fn msg_5_a_rejection_is_an_answer_where_one_can_go() {
    let rejected = ended(MessageCallKind::Ended(Class::Rejected));
    assert_eq!(fate(&arrival(), &rejected), MessageFate::Answer);
    let mute = MessageCallEnd {
        has_answer_subject: false,
        ..rejected
    };
    let dead = MessageFate::Dead(DeadReason::Rejected);
    assert_eq!(fate(&arrival(), &mute), dead);
}

#[test]
fn msg_7_work_that_may_have_been_done_is_not_repeated_unless_that_is_allowed() {
    let once = MessageArrival {
        is_idempotent: false,
        ..arrival()
    };
    assert_eq!(rules().begin(&once), MessageStart::Work { mark: true });
    let mut marked = once;
    marked.deliveries = 2;
    marked.notes.work = NotedWork::Begun;
    let dead = MessageStart::Dead(DeadReason::Maybe);
    assert_eq!(rules().begin(&marked), dead);
    let end = |executed| MessageCallEnd {
        executed,
        breaker: BreakerAfter::NotClosed(None),
        ..ended(FAILURE)
    };
    assert_eq!(
        fate(&once, &end(Executed::Maybe)),
        MessageFate::Dead(DeadReason::Maybe)
    );
    assert_eq!(
        fate(&once, &end(Executed::Yes)),
        MessageFate::Dead(DeadReason::Failures)
    );
    let returned = notes_of(fate(&once, &end(Executed::No)));
    assert_eq!(returned.work, NotedWork::NotBegun);
    // After a refusal by a limit, only a fallback can have done it.
    let limited = |executed| MessageCallEnd {
        executed,
        ..ended(MessageCallKind::Limited)
    };
    assert_eq!(
        fate(&once, &limited(Executed::Maybe)),
        MessageFate::Dead(DeadReason::Maybe)
    );
    notes_of(fate(&once, &limited(Executed::No)));
    notes_of(fate(&arrival(), &limited(Executed::Maybe)));
    let mut answered = marked;
    answered.notes.work = NotedWork::Answered;
    assert_eq!(rules().begin(&answered), MessageStart::Answered);
    // MSG-6: its reason stays until the dead letter is written.
    let mut unburied = marked;
    unburied.notes.work = NotedWork::Dead(DeadReason::Rejected, Executed::Yes);
    let dead = MessageStart::Dead(DeadReason::Rejected);
    assert_eq!(rules().begin(&unburied), dead);
    let repeats = MessageRules {
        repeats_maybe: true,
        ..rules()
    };
    let work = MessageStart::Work { mark: false };
    assert_eq!(repeats.begin(&marked), work);
    let again = repeats.end(&once, &end(Executed::Maybe), &retry(), &mut || 0.5);
    assert!(matches!(again, MessageFate::Return { .. }));
}

#[test]
fn msg_7_work_that_a_fallback_may_have_done_is_not_repeated_after_a_throttle() {
    let once = MessageArrival {
        is_idempotent: false,
        ..arrival()
    };
    for class in [Class::Throttled, Class::Misconfigured] {
        // A status, such as 429, is the dependency's own word.
        let declined = |executed_by_fallbacks| MessageCallEnd {
            executed: Executed::Yes,
            executed_by_fallbacks,
            ..ended(MessageCallKind::Ended(class))
        };
        notes_of(fate(&once, &declined(Executed::No)));
        notes_of(fate(&arrival(), &declined(Executed::Yes)));
        for (executed, reason) in [
            (Executed::Maybe, DeadReason::Maybe),
            (Executed::Yes, DeadReason::Failures),
        ] {
            let dead = MessageFate::Dead(reason);
            assert_eq!(fate(&once, &declined(executed)), dead, "{class:?}");
        }
        // A time limit that counts as a throttle says nothing of the work.
        let silent = MessageCallEnd {
            executed: Executed::Maybe,
            ..declined(Executed::No)
        };
        let dead = MessageFate::Dead(DeadReason::Maybe);
        assert_eq!(fate(&once, &silent), dead, "{class:?}");
    }
}

#[test]
fn msg_8_a_message_past_its_deadline_is_not_executed() {
    let late = MessageArrival {
        age: SECOND,
        ttl: Some(SECOND),
        ..arrival()
    };
    let dead = MessageStart::Dead(DeadReason::Expired);
    assert_eq!(rules().begin(&late), dead);
    let in_time = MessageArrival {
        age: 999 * MS,
        ..late
    };
    assert_eq!(rules().begin(&in_time), MessageStart::Work { mark: false });
    assert_eq!(in_time.time_left(), Some(MS));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = MessageCallKind> {
        prop_oneof![
            Just(MessageCallKind::Answered),
            Just(FAILURE),
            Just(MessageCallKind::Ended(Class::Throttled)),
            Just(MessageCallKind::Ended(Class::Rejected)),
            Just(MessageCallKind::Ended(Class::Misconfigured)),
            Just(MessageCallKind::Ended(Class::Cancelled)),
            Just(MessageCallKind::Refused),
            Just(MessageCallKind::Limited),
            Just(MessageCallKind::NoSlotFree),
        ]
    }

    fn ends() -> impl Strategy<Value = (MessageCallEnd, bool)> {
        let states = || {
            prop_oneof![
                Just(Executed::No),
                Just(Executed::Maybe),
                Just(Executed::Yes)
            ]
        };
        let breaker = prop_oneof![
            Just(BreakerAfter::Closed),
            Just(BreakerAfter::ByProbe),
            Just(BreakerAfter::NotClosed(None)),
            Just(BreakerAfter::NotClosed(Some(SECOND))),
        ];
        let wait = proptest::option::of((0_u64..200_000).prop_map(Duration::from_millis));
        (
            kinds(),
            (states(), states()),
            breaker,
            wait,
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(
                |(kind, (own, by_fallbacks), breaker, wait, has_answer_subject, crashes)| {
                    let end = MessageCallEnd {
                        kind,
                        executed: own.max(by_fallbacks),
                        executed_by_fallbacks: by_fallbacks,
                        wait,
                        breaker,
                        has_answer_subject,
                    };
                    (end, crashes)
                },
            )
    }

    proptest! {
        /// After any end of its calls, each delivery is in one column of the books, a message that
        /// has ended does not come again, and work that is not idempotent is done at most once.
        #[test]
        fn msg_3_the_books_balance_after_every_history(
            is_idempotent in any::<bool>(),
            history in proptest::collection::vec(ends(), 1..60),
        ) {
            let rules = rules();
            let mut books = MessageTally::default();
            let mut message = MessageArrival { is_idempotent, ..arrival() };
            let mut executed = 0;
            for (end, crashes) in history {
                books.fetch(message.deliveries == 1);
                prop_assert!(books.adds_up());
                let mark = match rules.begin(&message) {
                    MessageStart::Answered => unreachable!("no answer was noted"),
                    MessageStart::Dead(reason) => {
                        books.dead_letter(reason);
                        break;
                    }
                    MessageStart::Work { mark } => mark,
                };
                prop_assert_eq!(mark, !is_idempotent);
                // What the dependency declines by 429, 401 or 403 it has not done, nor have its
                // fallbacks.
                let declined = matches!(
                    end.kind,
                    MessageCallKind::Ended(Class::Throttled | Class::Misconfigured)
                ) && end.executed == Executed::Yes
                    && end.executed_by_fallbacks == Executed::No;
                let done = crashes || (end.executed != Executed::No && !declined);
                executed += u32::from(done);
                prop_assert!(is_idempotent || executed <= 1);
                if crashes {
                    books.give_back(ReturnReason::Interrupted);
                    if mark {
                        message.notes.work = NotedWork::Begun;
                    }
                    message.deliveries += 1;
                    continue;
                }
                match rules.end(&message, &end, &retry(), &mut || 0.5) {
                    MessageFate::Answer => {
                        books.answer();
                        break;
                    }
                    MessageFate::Dead(reason) => {
                        books.dead_letter(reason);
                        break;
                    }
                    MessageFate::Return { delay, reason, notes } => {
                        prop_assert!(delay >= LEAST && delay <= rules.max_delay);
                        prop_assert_eq!(notes.work, NotedWork::NotBegun);
                        books.give_back(reason);
                        message.notes = notes;
                        message.deliveries += 1;
                    }
                }
                prop_assert!(books.adds_up());
            }
            prop_assert!(books.adds_up());
            prop_assert_eq!(books.in_flight, 0);
            prop_assert!(books.answered + books.all_dead() <= 1);
        }
    }
}

#[test]
fn msg_7_what_is_given_back_has_no_mark() {
    let mut message = arrival();
    message.notes.work = NotedWork::Begun;
    for kind in [
        FAILURE,
        MessageCallKind::Ended(Class::Misconfigured),
        MessageCallKind::Refused,
        MessageCallKind::Limited,
        MessageCallKind::NoSlotFree,
    ] {
        let notes = notes_of(fate(&message, &ended(kind)));
        assert_eq!(notes.work, NotedWork::NotBegun, "{kind:?}");
    }
}

#[test]
fn reasons_are_words_of_metrics() {
    let words = DeadReason::ALL.map(|reason| (reason.as_str(), reason.to_string()));
    for (word, shown) in &words {
        assert_eq!(word, shown);
    }
    assert_eq!(
        words.map(|(word, _)| word),
        [
            "failures",
            "crashes",
            "maybe",
            "expired",
            "malformed",
            "rejected",
            "answer"
        ]
    );
    assert_eq!(
        ReturnReason::ALL.map(ReturnReason::as_str),
        ["refused", "throttled", "failed", "no_place", "interrupted"]
    );
}
