//! BRK-11: states, commands, reasons and events in words, with their figures.

use super::*;

#[test]
fn brk_11_each_reason_of_a_half_open_period_has_its_figures() {
    let (second, half) = (1_000 * MS, rate(0.5));
    for (reason, words) in [
        (TripReason::ProbeFailed, "a probe failed"),
        (
            TripReason::ProbeSlow { elapsed: second },
            "a probe was slow: it took 1 s",
        ),
        (
            TripReason::ProbeLost { lease: second },
            "a probe did not report within its lease of 1 s",
        ),
        (TripReason::ProbeCancelled, "a probe's caller went away"),
        (
            TripReason::HalfOpenRate {
                failures: 2,
                calls: 3,
                rate: Some(half),
            },
            "2 of 3 probes failed, at or above 0.5",
        ),
        (
            TripReason::HalfOpenRate {
                failures: 1,
                calls: 3,
                rate: None,
            },
            "1 of 3 probes failed, and none may",
        ),
        (
            TripReason::HalfOpenSlowRate {
                slow: 2,
                calls: 3,
                rate: half,
            },
            "2 of 3 probes were slow, at or above 0.5",
        ),
        (
            TripReason::HalfOpenCertain {
                failures: 2,
                needed: n(2),
                of: n(3),
            },
            "2 probes failed, so 2 of 3 cannot succeed any more",
        ),
        (
            TripReason::HalfOpenTooLong { after: second },
            "half-open came to no decision within 1 s",
        ),
    ] {
        assert_eq!(reason.to_string(), words);
    }
}

#[test]
fn brk_11_each_reason_of_a_closed_breaker_has_its_figures() {
    let half = rate(0.5);
    for (reason, words) in [
        (
            TripReason::FailureThreshold {
                failures: 3,
                threshold: n(3),
            },
            "3 calls in the window failed, at or above 3",
        ),
        (
            TripReason::Consecutive {
                failures: 3,
                threshold: n(3),
            },
            "3 calls in a row failed, at or above 3",
        ),
        (
            TripReason::FailureRate {
                failures: 5,
                calls: 10,
                rate: half,
            },
            "5 of 10 calls failed, at or above 0.5",
        ),
        (
            TripReason::SlowRate {
                slow: 3,
                overdue: 2,
                calls: 10,
                rate: half,
            },
            "5 of 10 calls were slow (2 still running), at or above 0.5",
        ),
        (TripReason::Commanded(super::reason()), "by command: a test"),
        (
            TripReason::Fleet { replicas: 2, of: 3 },
            "2 of 3 replicas had it open",
        ),
    ] {
        assert_eq!(reason.to_string(), words);
    }
}

#[test]
fn brk_11_events_tell_the_change_the_reason_and_the_next_try() {
    let mut bench = Bench::new(settings());
    bench.fail(0, 3);
    bench.tick(1_000);
    bench.call(1_000, Class::Success);
    bench.command(1_000, shadow());
    bench.fail(1_000, 3);
    bench.command(1_000, BreakerCommand::Clear);
    bench.breaker.recover(at(1_000));
    let told: Vec<String> = bench.events().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "closed -> open: 3 calls in a row failed, at or above 3; next try in 1 s",
            "open -> half_open: the open time is over",
            "half_open -> closed: 1 probe succeeded",
            "shadow by operator: a test",
            "would have opened: 3 calls in a row failed, at or above 3",
            "shadow taken off: by command: the override was taken off",
            "counts anew: its actor was restarted",
        ]
    );
    let (at, generation) = (at(0), 1);
    let progress = BreakerEvent::HalfOpenProgress {
        at,
        generation,
        successes: 1,
        needed: 2,
    };
    assert_eq!(progress.to_string(), "probe succeeded, 1/2");
    let due = BreakerEvent::ProbeDue { at, generation };
    assert_eq!(due.to_string(), "a probe is due: the lease is asked for");
}

fn shadow() -> BreakerCommand {
    BreakerCommand::Shadow {
        reason: reason(),
        until: Some(at(2_000)),
    }
}

#[test]
fn brk_11_sources_and_refusals_are_told_in_a_word() {
    let sources = [
        CommandSource::Operator,
        CommandSource::Supervisor,
        CommandSource::Fleet,
        CommandSource::Configuration,
    ];
    let words = sources.map(|source| source.to_string());
    assert_eq!(words, ["operator", "supervisor", "fleet", "configuration"]);
    let refusals = [
        RefusalState::Open,
        RefusalState::AwaitingLease,
        RefusalState::HalfOpen,
        RefusalState::ForcedOpen,
    ];
    let words = refusals.map(|state| state.to_string());
    assert_eq!(words, ["open", "open", "half_open", "forced_open"]);
}

#[test]
fn brk_10_a_command_has_a_name_a_reason_and_an_end() {
    let until = Some(at(2_000));
    let set = Override {
        mode: OverrideMode::Disabled,
        reason: reason(),
        by: CommandSource::Fleet,
        until,
    };
    let configured = ConfiguredOverride {
        mode: OverrideMode::Disabled,
        reason: reason(),
    };
    let disable = BreakerCommand::Disable {
        reason: reason(),
        until,
    };
    let open = BreakerCommand::Open {
        reason: reason(),
        until: None,
    };
    let configure = |set| BreakerCommand::Configure { set };
    for (command, name, reason, end) in [
        (open, "open", "a test", None),
        (disable, "disable", "a test", until),
        (shadow(), "shadow", "a test", until),
        (BreakerCommand::Clear, "clear", "", None),
        (trip(None), "trip", "a test", None),
        (probe(), "probe", "a test", None),
        (configure(Some(configured)), "configure", "a test", None),
        (configure(None), "configure", "", None),
        (
            BreakerCommand::OfFleet(Some(set)),
            "override",
            "a test",
            until,
        ),
        (BreakerCommand::OfFleet(None), "override", "", None),
        (BreakerCommand::Grant, "grant", "", None),
    ] {
        assert_eq!((command.name(), command.reason()), (name, reason));
        assert_eq!(command.until(), end, "{name}");
    }
}
