//! Warnings about settings of a dependency that contradict each other, and about values that were
//! hardly meant.
//!
//! All of them are usable: nothing here is a problem.

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_policy::{
    BackoffSettings, Class, HalfOpenRule, HedgeDelay, RetryJitter, Symptom, WindowKind,
};

use crate::config::dependency::DependencyConfig;
use crate::config::fallback::{FallbackConfig, FallbackKind};
use crate::config::kind::DependencyKind;
use crate::config::odd_secret::{self, OddSecret};
use crate::config::section::Section;
use crate::config::value_type::is_in_home;

/// Warns about one dependency, after its table was read.
pub(super) fn check(section: &Section<'_>, config: &DependencyConfig) {
    check_breaker(section, config);
    check_failure_rate(section, config);
    check_retry(section, config);
    check_waits(section, config);
    check_hedge(section, config);
    check_fallbacks(section, &config.fallbacks);
    check_health(section, config);
    check_model(section, config);
    check_command(section, config);
}

fn check_breaker(section: &Section<'_>, config: &DependencyConfig) {
    let settings = &config.settings;
    let breaker = &settings.breaker;
    if let (Some(slow), Some(attempt), Some(_)) = (
        breaker.slow_call,
        settings.timeout.attempt,
        breaker.slow_rate,
    ) && slow > attempt
        && section.is_given("breaker.slow_call")
    {
        let attempt = humantime::format_duration(attempt);
        let text = format!("no call is that slow: timeout.attempt ends each after {attempt}");
        section.warn("breaker.slow_call", text);
    }
    if let (Some(limit), Some(attempt)) = (&breaker.half_open.limit, settings.timeout.attempt)
        && limit.after < attempt
    {
        let attempt = humantime::format_duration(attempt);
        let text = format!("it ends before a probe can: timeout.attempt is {attempt}");
        section.warn("breaker.half_open_limit.after", text);
    }
    if settings
        .classify
        .rejected
        .0
        .contains(&Symptom::StatusClass(5))
    {
        let text = "faults of the dependency count as mistakes of its callers, so that the breaker \
                    does not see them";
        section.warn("classify.rejected", text.to_owned());
    }
}

/// Warns of a share of failures that is never reached first: by the time that it is judged, the number
/// of failures has opened the breaker (BRK-1).
fn check_failure_rate(section: &Section<'_>, config: &DependencyConfig) {
    let breaker = &config.settings.breaker;
    let (Some(rate), Some(threshold)) = (breaker.failure_rate, breaker.failure_threshold) else {
        return;
    };
    // A consecutive window is a problem of its own, and half-open results are judged by the rate.
    let is_used_half_open = matches!(breaker.half_open.rule, HalfOpenRule::Rate { .. });
    if breaker.window == WindowKind::Consecutive || is_used_half_open {
        return;
    }
    let needed = (rate.as_f64() * f64::from(breaker.minimum_calls)).ceil();
    if f64::from(threshold.get()) > needed {
        return;
    }
    let default = match section.is_given("breaker.failure_threshold") {
        true => "",
        false => " by default",
    };
    let text = format!(
        "it has no effect: failure_threshold opens the breaker at {threshold} failures in the \
         window{default}, and of minimum_calls ({}) this share is {needed}: set failure_threshold = \
         \"off\", or above {needed}",
        breaker.minimum_calls
    );
    section.warn("breaker.failure_rate", text);
}

fn check_retry(section: &Section<'_>, config: &DependencyConfig) {
    let retry = &config.settings.retry;
    for symptom in retry.on.iter().flat_map(|on| &on.0) {
        // A whole class has statuses that are retried too.
        let is_class = matches!(symptom, Symptom::StatusClass(_));
        let fault = match config.settings.classify.class_of(*symptom) {
            Class::Rejected if !is_class => "the caller's mistake",
            Class::Misconfigured if !is_class => "a mistake in our configuration",
            _ => continue,
        };
        let text = format!(
            "{symptom} is never retried, since it is {fault}: take it out, or list it in \
             classify.failure"
        );
        section.warn("retry.on", text);
    }
    let is_single = retry.max_attempts.get() == 1;
    if is_single
        && retry.on_open
        && section.is_given("retry.max_attempts")
        && section.is_given("retry.on_open")
    {
        let text = "it has no effect: retry.max_attempts is 1";
        section.warn("retry.on_open", text.to_owned());
    }
    // CALL-7: the key is the leave to repeat, and how the dependency knows a repeat.
    let mut removed = config.outbound.remove_headers.iter();
    if !is_single && removed.any(|name| name.eq_ignore_ascii_case("idempotency-key")) {
        let text = "writes with an idempotency-key are tried again, and without it the dependency \
                    takes each try for a new one";
        section.warn("remove_headers", text.to_owned());
    }
    let is_zero = retry
        .budget
        .is_some_and(|budget| budget.ratio <= 0.0 && budget.floor_per_second == 0);
    if is_zero && !is_single {
        let text = "a budget of nothing allows no retry: give a ratio or a floor_per_second";
        section.warn("retry.budget.ratio", text.to_owned());
    }
}

/// Warns of a share that is never told, since the dependency is down before.
fn check_health(section: &Section<'_>, config: &DependencyConfig) {
    let share = config.settings.health.degraded_at.as_f64();
    // HLT-1: half of the answers.
    if share >= 0.5 && section.is_given("health.degraded_at") {
        let text = "it is never degraded by its errors: it is down when half of the answers are \
                    errors, and this share is not below that";
        section.warn("health.degraded_at", text.to_owned());
    }
}

/// Returns the shortest wait before the first retry.
fn first_wait(backoff: &BackoffSettings) -> Duration {
    let base = backoff.base.min(backoff.max);
    match backoff.jitter {
        RetryJitter::Full => Duration::ZERO,
        RetryJitter::Equal => base / 2,
        _ => base,
    }
}

/// Warns of a wait that the limit of the whole call always ends first.
fn check_waits(section: &Section<'_>, config: &DependencyConfig) {
    let settings = &config.settings;
    let Some(total) = settings.timeout.total else {
        return;
    };
    let first = first_wait(&settings.retry.backoff);
    let given = section.is_given("retry.backoff.base") || section.is_given("timeout.total");
    if settings.retry.max_attempts.get() > 1 && given && first >= total {
        let total = humantime::format_duration(total);
        let text = format!("no call is tried again: timeout.total ends it before, after {total}");
        section.warn("retry.backoff.base", text);
    }
    let of_rate = settings.rate_limit.map(|limit| limit.max_wait);
    let waits = [
        ("bulkhead.max_wait", Some(settings.bulkhead.max_wait)),
        ("rate_limit.max_wait", of_rate),
        ("throttle.max_wait", Some(settings.throttle.max_wait)),
        ("timeout.first_token", settings.timeout.first_token),
        ("timeout.gap", settings.timeout.gap),
    ];
    for (key, wait) in waits {
        if wait.is_some_and(|wait| wait > total) && section.is_given(key) {
            let total = humantime::format_duration(total);
            let text = format!("timeout.total ends the call before, after {total}");
            section.warn(key, text);
        }
    }
}

/// Warns of a hedge that would begin after the first attempt has ended.
fn check_hedge(section: &Section<'_>, config: &DependencyConfig) {
    let timeout = &config.settings.timeout;
    let Some(hedge) = config.settings.hedge else {
        return;
    };
    let (key, delay) = match hedge.delay {
        HedgeDelay::Fixed(delay) => ("hedge.delay", delay),
        HedgeDelay::Quantile { at_least, .. } => ("hedge.delay.at_least", at_least),
    };
    let is_http = config.kind.is_some_and(DependencyKind::is_http);
    let head = timeout.first_byte.filter(|_| is_http);
    let limits = [("total", timeout.total), ("first_byte", head)];
    let ends = limits.into_iter().find_map(|(name, limit)| {
        let limit = limit.filter(|limit| *limit <= delay)?;
        Some((name, limit))
    });
    if let Some((name, limit)) = ends {
        let limit = humantime::format_duration(limit);
        let text =
            format!("it has no effect: timeout.{name} ends the attempt before, after {limit}");
        section.warn(key, text);
    }
}

/// Returns true for a cache that answers nothing that the other cache, which is asked first, does not.
fn has_answers_of(cache: &FallbackConfig, first: &FallbackConfig) -> bool {
    let FallbackKind::StaleCache {
        max_age,
        headers,
        obey,
        ..
    } = &cache.kind
    else {
        return false;
    };
    let is_wider = matches!(&first.kind, FallbackKind::StaleCache { max_age: age, headers: other, obey: is_strict, .. }
        if age >= max_age && other == headers && is_strict == obey);
    is_wider && cache.on.iter().all(|on| first.on.contains(on))
}

fn check_fallbacks(section: &Section<'_>, all: &[FallbackConfig]) {
    // An entry with a problem has no place in the list.
    if section.list_len("fallback") != all.len() {
        return;
    }
    for (index, fallback) in all.iter().enumerate() {
        if all[..index]
            .iter()
            .any(|before| has_answers_of(fallback, before))
        {
            let text = "it has the same answers as the stale_cache before it";
            section.warn(&format!("fallback[{index}].kind"), text.to_owned());
        }
        let FallbackKind::Fixed {
            content_type,
            body,
            status,
            ..
        } = &fallback.kind
        else {
            continue;
        };
        let is_json = content_type.split(';').next().is_some_and(|kind| {
            let kind = kind.trim();
            kind == "application/json" || kind.ends_with("+json")
        });
        let broken = serde_json::from_str::<serde_json::Value>(body).err();
        if let Some(error) =
            broken.filter(|_| is_json && !body.is_empty() && ![204, 304].contains(status))
        {
            let (line, column) = (error.line(), error.column());
            let text = format!(
                "it is no JSON (line {line}, column {column}), and content_type says that it is"
            );
            section.warn(&format!("fallback[{index}].body"), text);
        }
    }
}

/// Warns of fallbacks that call the same address, once all dependencies are known.
pub(in crate::config) fn check_same_address(
    dependencies: &BTreeMap<String, DependencyConfig>,
    table: &Section<'_>,
) {
    for (owner, config) in dependencies {
        // Another model of one provider is a fallback of its own.
        let Some(url) = config.url.as_ref().filter(|_| config.model.is_none()) else {
            continue;
        };
        for (index, fallback) in config.fallbacks.iter().enumerate() {
            let FallbackKind::Dependency { name, .. } = &fallback.kind else {
                continue;
            };
            let other = dependencies.get(name).and_then(|other| other.url.as_ref());
            if name != owner && other == Some(url) {
                let text = format!("{name} has the same url as {owner}, so it fails with it");
                table.warn(&format!("{owner}.fallback[{index}].name"), text);
            }
        }
    }
}

fn check_model(section: &Section<'_>, config: &DependencyConfig) {
    let Some(model) = &config.model else {
        return;
    };
    let url = config.url.as_deref().unwrap_or_default();
    let ends = [
        "/chat/completions",
        "/messages",
        "/responses",
        "/embeddings",
    ];
    let path = url.trim_end_matches('/');
    if let Some(end) = ends.iter().find(|end| path.ends_with(*end)) {
        let base = &path[..path.len() - end.len()];
        let text = format!("callers' paths are appended to it, did you mean {base:?}?");
        section.warn("url", text);
    }
    let Some(key) = &model.key else {
        return;
    };
    let key = key.expose();
    let begin = key.get(.."bearer ".len()).unwrap_or_default();
    if begin.eq_ignore_ascii_case("bearer ") && model.key_header.is_none() {
        let text = "the key alone belongs here: Bearer is put before it where the API has it";
        section.warn("key", text.to_owned());
    }
    let mut names = config.outbound.headers.keys();
    if names.any(|name| name.eq_ignore_ascii_case("authorization")) && model.key_header.is_none() {
        let text = "headers.authorization is set too: leave out one of the two";
        section.warn("key", text.to_owned());
    }
}

fn check_command(section: &Section<'_>, config: &DependencyConfig) {
    let Some(mcp) = config.mcp.as_ref().filter(|mcp| !mcp.command.is_empty()) else {
        return;
    };
    let is_text = section.has("args") && section.list_len("args") == 0;
    if let [one] = &mcp.args[..]
        && is_text
        && one.contains(' ')
    {
        let text = "all of it is one argument: give a list, such as [\"-y\", \"a-server\"]; in a \
                    variable, commas separate them";
        section.warn("args", text.to_owned());
    }
    for (argument, number) in mcp.args.iter().zip(1..) {
        let odd = match odd_secret::of_text(argument) {
            // A package may be called `@acme/todo`.
            Some(OddSecret::Placeholder) if !argument.contains('/') => "looks like a placeholder",
            Some(OddSecret::Variable) => "is passed on as it is: variables are not put in",
            // It has no shell around it.
            _ if is_in_home(argument) => "is passed on as it is: ~ is not your home here",
            _ => continue,
        };
        section.warn("args", format!("argument {number} {odd}"));
    }
    if let Some(cwd) = mcp.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
        let full = std::path::absolute(cwd).unwrap_or_else(|_| cwd.clone());
        let text = format!("there is no such folder: {}", full.display());
        section.warn("cwd", text);
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    fn warnings(breaker: &str) -> Vec<String> {
        let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"http://a\"\n{breaker}");
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        settings
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn brk_1_a_share_of_failures_behind_a_smaller_number_is_warned_of() {
        let of_20 = "breaker.window = { kind = \"count\", size = 100 }\n";
        let rate = "breaker.failure_rate = 0.5\n";
        let found = warnings(&format!("{of_20}{rate}"));
        assert_eq!(found.len(), 1, "{found:?}");
        let text = &found[0];
        assert!(
            text.contains("dependencies.web.breaker.failure_rate"),
            "{text}"
        );
        assert!(
            text.contains("at 5 failures in the window by default"),
            "{text}"
        );
        assert!(text.contains("(20) this share is 10"), "{text}");
        for (threshold, count) in [("5", 1), ("10", 1), ("11", 0), ("\"off\"", 0)] {
            let given = format!("breaker.failure_threshold = {threshold}\n");
            let found = warnings(&format!("{of_20}{rate}{given}"));
            assert_eq!(found.len(), count, "{threshold}: {found:?}");
            assert!(
                found.iter().all(|text| !text.contains("by default")),
                "{found:?}"
            );
        }
        let half_open = "breaker.half_open_rule = \"rate\"\n";
        let found = warnings(&format!("{of_20}{rate}{half_open}"));
        assert!(found.is_empty(), "{found:?}");
    }
}
