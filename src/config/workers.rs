//! The section `workers`.

use std::time::Duration;

use breakerbox_policy::{
    GiveUp, Intensity, Placement, QuarantineSettings, RestartType, WhileRestarting, WorkerSettings,
};

use super::backoff;
use super::section::Section;
use super::value_type::{TICK, YEAR, count, duration, integer, one_of};

/// Reads `workers`. `give_up`: its default.
pub(super) fn read(mut section: Section<'_>, give_up: GiveUp) -> WorkerSettings {
    const PLACES: &[(&str, Placement)] = &[
        ("shared", Placement::Shared),
        ("dedicated", Placement::Dedicated),
    ];
    const RESTARTS: &[(&str, RestartType)] = &[
        ("permanent", RestartType::Permanent),
        ("transient", RestartType::Transient),
        ("temporary", RestartType::Temporary),
    ];
    const ENDS: &[(&str, GiveUp)] = &[
        ("park", GiveUp::Park),
        ("retry", GiveUp::Retry),
        ("escalate", GiveUp::Escalate),
    ];
    const MEANWHILE: &[(&str, WhileRestarting)] = &[
        ("hold", WhileRestarting::Hold),
        ("reject", WhileRestarting::Reject),
    ];
    let default = WorkerSettings::default();
    let settings = WorkerSettings {
        count: section.get_or("count", &count(1024), default.count),
        placement: section.get_or("placement", &one_of(PLACES), default.placement),
        restart: section.get_or("restart", &one_of(RESTARTS), default.restart),
        intensity: intensity(section.section("intensity"), default.intensity),
        backoff: backoff::read(section.section("backoff"), default.backoff),
        reset_after: section.get_or(
            "reset_after",
            &duration(Duration::ZERO..=YEAR),
            default.reset_after,
        ),
        start_timeout: section.get_or(
            "start_timeout",
            &duration(TICK..=YEAR).or_off(),
            default.start_timeout,
        ),
        give_up: section.get_or("give_up", &one_of(ENDS), give_up),
        while_restarting: section.get_or(
            "while_restarting",
            &one_of(MEANWHILE),
            default.while_restarting,
        ),
        drain: section.get_or("drain", &duration(Duration::ZERO..=YEAR), default.drain),
        stuck_after: section.get_or(
            "stuck_after",
            &duration(TICK..=YEAR).or_off(),
            default.stuck_after,
        ),
        quarantine: section.section_or_off("quarantine").map(quarantine),
    };
    let shared = settings.placement == Placement::Shared && !section.is_bad("placement");
    if settings.stuck_after.is_some() && shared {
        section.conflict(
            "stuck_after",
            "a shared thread cannot be watched for one worker",
            "\"off\", or placement = \"dedicated\"",
        );
    }
    section.finish();
    settings
}

fn intensity(mut section: Section<'_>, default: Intensity) -> Intensity {
    let settings = Intensity {
        max: section.get_or("max", &integer(0..=1_000_000), default.max),
        within: section.get_or("within", &duration(TICK..=YEAR), default.within),
    };
    section.finish();
    settings
}

fn quarantine(mut section: Section<'_>) -> QuarantineSettings {
    let default = QuarantineSettings::default();
    let settings = QuarantineSettings {
        crashes: section.get_or("crashes", &count(1000), default.crashes),
        ttl: section.get_or("ttl", &duration(TICK..=YEAR), default.ttl),
        max_entries: section.get_or("max_entries", &count(1_000_000), default.max_entries),
    };
    section.finish();
    settings
}
