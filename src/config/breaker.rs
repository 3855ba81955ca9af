//! The section `breaker`: the conditions under which calls are refused.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::judgement::{FACTOR, SHARE};
use breakerbox_policy::{
    BreakerSettings, CancelledPolicy, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, LostProbe,
    OpenTime, TimeoutSettings, WindowKind,
};

use super::kind::DependencyKind;
use super::section::Section;
use super::value_type::{TICK, YEAR, boolean, count, duration, integer, number, one_of, rate};

/// Limit against needless memory use.
const MOST_OUTCOMES: u32 = 1_000_000;

#[derive(Clone, Copy, PartialEq)]
enum WindowChoice {
    Consecutive,
    Count,
    Time,
    Tumbling,
}

#[derive(Clone, Copy, PartialEq)]
enum ProbeRuleChoice {
    Successes,
    Rate,
    KOfN,
    AutoClose,
}

/// Reads the section. The limits of time of a probe must fit into its lease.
pub(super) fn read(
    mut section: Section<'_>,
    timeout: &TimeoutSettings,
    kind: Option<DependencyKind>,
) -> BreakerSettings {
    let default = BreakerSettings::default();
    let settings = BreakerSettings {
        window: read_window(section.kind_table("window")),
        failure_threshold: section.get_or(
            "failure_threshold",
            &count(MOST_OUTCOMES).or_off(),
            default.failure_threshold,
        ),
        consecutive_failures: section.get_or(
            "consecutive_failures",
            &count(MOST_OUTCOMES).or_off(),
            default.consecutive_failures,
        ),
        failure_rate: section.get_or("failure_rate", &rate().or_off(), default.failure_rate),
        slow_rate: section.get_or("slow_rate", &rate().or_off(), default.slow_rate),
        slow_call: section.get_or(
            "slow_call",
            &duration(TICK..=YEAR).or_off(),
            default.slow_call,
        ),
        minimum_calls: section.get_or(
            "minimum_calls",
            &integer(1..=MOST_OUTCOMES),
            default.minimum_calls,
        ),
        open: read_open_time(&mut section),
        half_open: read_half_open(&mut section, longest_silence(timeout, kind)),
        cancelled: read_cancelled(section.kind_table("cancelled")),
    };
    check(&section, &settings);
    section.finish();
    settings
}

fn read_window(mut section: Section<'_>) -> WindowKind {
    const KINDS: &[(&str, WindowChoice)] = &[
        ("consecutive", WindowChoice::Consecutive),
        ("count", WindowChoice::Count),
        ("time", WindowChoice::Time),
        ("tumbling", WindowChoice::Tumbling),
    ];
    let kind = section.get("kind", &one_of(KINDS));
    if !section.present {
        section.default_to("kind", &one_of(KINDS), kind, WindowChoice::Consecutive);
    }
    let size = section.get("size", &count(MOST_OUTCOMES));
    let any_span = duration(TICK..=YEAR);
    let span = section.get("span", &any_span);
    section.warn_if_long("span", &any_span, "");
    let buckets = section.get("buckets", &count(10_000));
    if kind.is_none() && section.present && !section.has("kind") {
        section.conflict(
            "kind",
            "it is missing",
            "consecutive, count, time or tumbling",
        );
    }
    let missing = |key: &str, needs: bool| {
        if needs && !section.has(key) {
            let reason = format!("this kind of window needs {key}");
            section.conflict("kind", reason, &format!("to set {key} too"));
        }
    };
    let (window, keys): (_, &[&str]) = match kind {
        None | Some(WindowChoice::Consecutive) => (Some(WindowKind::Consecutive), &[]),
        Some(WindowChoice::Count) => {
            missing("size", true);
            (size.map(|size| WindowKind::Count { size }), &["size"])
        }
        Some(WindowChoice::Time) => {
            missing("span", true);
            let ten = NonZeroU32::new(10).unwrap_or(NonZeroU32::MIN);
            let buckets = section.default_to("buckets", &count(10_000), buckets, ten);
            let window = span.map(|span| WindowKind::Time { span, buckets });
            (window, &["span", "buckets"])
        }
        Some(WindowChoice::Tumbling) => {
            missing("span", true);
            (span.map(|span| WindowKind::Tumbling { span }), &["span"])
        }
    };
    section.reject_others("kind", keys);
    section.finish();
    window.unwrap_or(WindowKind::Consecutive)
}

fn read_open_time(section: &mut Section<'_>) -> OpenTime {
    let default = OpenTime::default();
    let span = duration(TICK..=YEAR);
    let base = section.get("recovery_timeout", &span);
    let mut growth = section.section("recovery_backoff");
    let max = growth.get("max", &span);
    let base = section.default_to("recovery_timeout", &span, base, default.base);
    let open = OpenTime {
        base,
        factor: growth.get_or("factor", &number(FACTOR), default.factor),
        max: growth.default_to("max", &span, max, default.max.max(base)),
        jitter: growth.get_or("jitter", &number(SHARE), default.jitter),
    };
    if open.base > open.max && !section.is_bad("recovery_timeout") {
        let base = humantime::format_duration(open.base);
        growth.conflict(
            "max",
            format!("it is shorter than recovery_timeout, which is {base}"),
            &format!("a duration of at least {base}"),
        );
    }
    growth.finish();
    open
}

/// Returns the longest time for which a probe may be silent, after the key that limits it.
fn longest_silence(
    timeout: &TimeoutSettings,
    kind: Option<DependencyKind>,
) -> Option<(&'static str, Duration)> {
    let is_http = kind.is_some_and(DependencyKind::is_http);
    let head = timeout.first_byte.filter(|_| is_http);
    let named = |key, limit: Option<Duration>| Some((key, limit?));
    named("attempt", timeout.attempt)
        .or_else(|| named("first_byte", head))
        .or_else(|| named("total", timeout.total))
}

fn read_half_open(
    section: &mut Section<'_>,
    silence: Option<(&str, Duration)>,
) -> HalfOpenSettings {
    const LOST: &[(&str, LostProbe)] = &[
        ("fails", LostProbe::Fails),
        ("frees_its_slot", LostProbe::FreesItsSlot),
    ];
    let default = HalfOpenSettings::default();
    // BRK-5: a dependency that answers within its limits of time loses no probe.
    let longest = silence.map_or(Duration::ZERO, |(_, longest)| longest);
    let long_enough = default.probe_lease.max(longest);
    let settings = HalfOpenSettings {
        max_calls: section.get_or("half_open_max_calls", &count(10_000), default.max_calls),
        max_admitted: section.get_or(
            "half_open_max_admitted",
            &count(10_000).or_off(),
            default.max_admitted,
        ),
        rule: read_rule(section),
        probe_lease: section.get_or("probe_lease", &duration(TICK..=YEAR), long_enough),
        lost_probe: section.get_or("lost_probe", &one_of(LOST), default.lost_probe),
        cancelled_probe_reopens: section.get_or(
            "cancelled_probe_reopens",
            &boolean(),
            default.cancelled_probe_reopens,
        ),
        limit: section
            .section_if_given("half_open_limit")
            .and_then(read_limit),
        lease: default.lease,
    };
    check_lease(section, settings.probe_lease, silence);
    let needed = match settings.rule {
        HalfOpenRule::Successes(needed) | HalfOpenRule::KOfN { needed, .. } => Some(needed),
        HalfOpenRule::Rate { results } => Some(results),
        HalfOpenRule::AutoClose => None,
    };
    if let (Some(most), Some(needed)) = (settings.max_admitted, needed)
        && most < needed
    {
        section.conflict(
            "half_open_max_admitted",
            format!("the breaker could never close, half_open_attempt_limit is {needed}"),
            &format!("a whole number of at least {needed}, or \"off\""),
        );
    }
    settings
}

/// Reports a lease that ends before a probe has to.
fn check_lease(section: &Section<'_>, lease: Duration, silence: Option<(&str, Duration)>) {
    const KEY: &str = "probe_lease";
    // Where no limit ends a call, that is warned of already.
    let Some((limit, longest)) = silence.filter(|(_, longest)| *longest > lease) else {
        return;
    };
    let longest = humantime::format_duration(longest);
    let text = format!("a probe may take longer, timeout.{limit} is {longest}");
    if limit == "attempt" {
        section.conflict(KEY, text, &format!("a duration of at least {longest}"));
    } else {
        section.warn(KEY, format!("{text}, and one that does fails"));
    }
}

fn read_limit(mut section: Section<'_>) -> Option<HalfOpenLimit> {
    let any_span = duration(TICK..=YEAR);
    let after = section.get("after", &any_span);
    section.warn_if_long("after", &any_span, "");
    let closes = section.get_or(
        "then",
        &one_of(&[("opens", false), ("closes", true)]),
        false,
    );
    if section.present && !section.has("after") {
        section.conflict("after", "it is missing", "a duration");
    }
    section.finish();
    after.map(|after| HalfOpenLimit { after, closes })
}

fn read_rule(section: &mut Section<'_>) -> HalfOpenRule {
    const RULES: &[(&str, ProbeRuleChoice)] = &[
        ("successes", ProbeRuleChoice::Successes),
        ("rate", ProbeRuleChoice::Rate),
        ("k_of_n", ProbeRuleChoice::KOfN),
        ("auto_close", ProbeRuleChoice::AutoClose),
    ];
    let limit = section.get_or("half_open_attempt_limit", &count(10_000), NonZeroU32::MIN);
    let limit_is_bad = section.is_bad("half_open_attempt_limit");
    let mut rule = section.kind_table("half_open_rule");
    let kind = rule.get("kind", &one_of(RULES));
    if !rule.present {
        rule.default_to("kind", &one_of(RULES), kind, ProbeRuleChoice::Successes);
    }
    let of = rule.get("of", &count(10_000));
    if rule.present && !rule.has("kind") {
        rule.conflict(
            "kind",
            "it is missing",
            "successes, rate, k_of_n or auto_close",
        );
    }
    let chosen = match kind.unwrap_or(ProbeRuleChoice::Successes) {
        ProbeRuleChoice::Successes => HalfOpenRule::Successes(limit),
        ProbeRuleChoice::Rate => HalfOpenRule::Rate { results: limit },
        ProbeRuleChoice::AutoClose => HalfOpenRule::AutoClose,
        ProbeRuleChoice::KOfN => {
            if !rule.has("of") {
                rule.conflict(
                    "kind",
                    "this rule needs of",
                    "{ kind = \"k_of_n\", of = 5 }",
                );
            }
            if let Some(of) = of.filter(|of| *of < limit && !limit_is_bad) {
                rule.conflict(
                    "of",
                    format!("{limit} of {of} cannot succeed, half_open_attempt_limit is {limit}"),
                    &format!("a whole number of at least {limit}"),
                );
            }
            let of = of.unwrap_or(limit);
            HalfOpenRule::KOfN { needed: limit, of }
        }
    };
    rule.reject_others(
        "kind",
        if kind == Some(ProbeRuleChoice::KOfN) {
            &["of"]
        } else {
            &[]
        },
    );
    rule.finish();
    chosen
}

fn read_cancelled(mut section: Section<'_>) -> CancelledPolicy {
    #[derive(Clone, Copy, PartialEq)]
    enum CancelledKind {
        Ignore,
        Failure,
        Rate,
    }
    const KINDS: &[(&str, CancelledKind)] = &[
        ("ignore", CancelledKind::Ignore),
        ("failure", CancelledKind::Failure),
        ("rate", CancelledKind::Rate),
    ];
    let kind = section.get("kind", &one_of(KINDS));
    if !section.present {
        section.default_to("kind", &one_of(KINDS), kind, CancelledKind::Ignore);
    }
    let share = section.get("rate", &rate());
    if section.present && !section.has("kind") {
        section.conflict("kind", "it is missing", "ignore, failure or rate");
    }
    section.reject_others(
        "kind",
        if kind == Some(CancelledKind::Rate) {
            &["rate"]
        } else {
            &[]
        },
    );
    let policy = match (kind, share) {
        (Some(CancelledKind::Failure), _) => CancelledPolicy::Failure,
        (Some(CancelledKind::Rate), Some(share)) => CancelledPolicy::Rate(share),
        (Some(CancelledKind::Rate), None) if !section.has("rate") => {
            section.conflict(
                "kind",
                "this kind needs rate",
                "{ kind = \"rate\", rate = 0.5 }",
            );
            CancelledPolicy::Ignore
        }
        _ => CancelledPolicy::Ignore,
    };
    section.finish();
    policy
}

/// Reports combinations of settings that could never trip, or never be evaluated.
fn check(section: &Section<'_>, settings: &BreakerSettings) {
    let rates = [
        ("failure_rate", settings.failure_rate),
        ("slow_rate", settings.slow_rate),
    ];
    let window_is_sound = {
        let report = section.report.borrow();
        let window = section.path_of("window");
        !report
            .problems
            .iter()
            .any(|problem| problem.key.starts_with(&window))
    };
    if settings.slow_rate.is_some() && settings.slow_call.is_none() && !section.is_bad("slow_call")
    {
        section.conflict(
            "slow_rate",
            "no call is slow without slow_call",
            "to set slow_call too",
        );
    }
    for (key, rate) in rates {
        if rate.is_some() && settings.window == WindowKind::Consecutive && window_is_sound {
            section.conflict(
                key,
                "a consecutive window has no rate",
                "a window of kind count, time or tumbling, such as window = { kind = \"count\", size = 100 }",
            );
        }
    }
    if matches!(settings.half_open.rule, HalfOpenRule::Rate { .. })
        && rates
            .iter()
            .all(|(key, rate)| rate.is_none() && !section.is_bad(key))
    {
        section.conflict(
            "half_open_rule",
            "the rule rate needs a threshold",
            "to set failure_rate or slow_rate too",
        );
    }
    let WindowKind::Count { size } = settings.window else {
        return;
    };
    let any_rate = rates.iter().any(|(_, rate)| rate.is_some());
    if any_rate && settings.minimum_calls > size.get() && !section.is_bad("minimum_calls") {
        section.conflict(
            "minimum_calls",
            format!(
                "{} calls never fit into a window of {size}",
                settings.minimum_calls
            ),
            &format!("a whole number from 1 to {size}, or a larger window.size"),
        );
    }
    if let Some(threshold) = settings
        .failure_threshold
        .filter(|threshold| *threshold > size)
        && (section.has("failure_threshold") || !any_rate)
    {
        section.conflict(
            "failure_threshold",
            format!("{threshold} failures never fit into a window of {size}"),
            &format!("a whole number from 1 to {size}, \"off\", or a larger window.size"),
        );
    }
}
