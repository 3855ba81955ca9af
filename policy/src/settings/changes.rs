//! Differences between two sets of settings, as text by section.

use std::fmt::Debug;

use super::{
    BreakerSettings, BulkheadSettings, ClassifySettings, ConfiguredOverride, DependencySettings,
    KeySettings, RetrySettings, ThrottleSettings, TimeoutSettings, WorkerSettings,
};

/// Compares two structs of one type field by field. Every field must be named, or it does not
/// compile: a change of a forgotten setting would not be reported.
macro_rules! compare {
    ($found:expr, $section:literal, $type:ident, $old:expr, $new:expr, [$($field:ident),* $(,)?]) => {{
        let $type { $($field),* } = $old;
        $(
            if *$field != $new.$field {
                let key = concat!($section, stringify!($field));
                $found.push(line(key, $field, &$new.$field));
            }
        )*
    }};
}

/// Returns the line of one change: `key: old -> new`.
fn line(key: &str, old: &dyn Debug, new: &dyn Debug) -> String {
    format!("{key}: {} -> {}", plain(old), plain(new))
}

/// Returns a value as people read it: an absent one is `off`, a present one stands by itself.
fn plain(value: &dyn Debug) -> String {
    let debug = format!("{value:?}");
    let mut text = String::with_capacity(debug.len());
    // One entry for each open parenthesis; true if it belongs to a `Some`.
    let mut open = Vec::new();
    let mut rest = debug.as_str();
    while let Some(letter) = rest.chars().next() {
        let begins_word = !text.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let (taken, shown) = match letter {
            _ if begins_word && rest.starts_with("Some(") => {
                open.push(true);
                ("Some(".len(), "")
            }
            _ if begins_word && rest.starts_with("None") => ("None".len(), "off"),
            '(' => {
                open.push(false);
                (1, "(")
            }
            ')' if open.pop() == Some(true) => (1, ""),
            _ => (letter.len_utf8(), &rest[..letter.len_utf8()]),
        };
        text.push_str(shown);
        rest = &rest[taken..];
    }
    text
}

impl DependencySettings {
    /// Lists the changes from these settings to `new`, one line per setting: `key: old -> new`.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let Self {
            breaker,
            timeout,
            retry,
            hedge,
            rate_limit,
            throttle,
            bulkhead,
            workers: _,
            classify,
            health,
            keys,
            when_all_down,
            chaos,
            fallback_only: _,
            configured_override,
        } = self;
        compare_breaker(&mut found, breaker, &new.breaker);
        compare_timeout(&mut found, timeout, &new.timeout);
        compare_retry(&mut found, retry, &new.retry);
        compare_throttle(&mut found, throttle, &new.throttle);
        compare_bulkhead(&mut found, bulkhead, &new.bulkhead);
        compare_classify(&mut found, classify, &new.classify);
        compare_keys(&mut found, keys, &new.keys);
        let mut whole = |key: &str, old: &dyn Debug, now: &dyn Debug, same: bool| {
            if !same {
                found.push(line(key, old, now));
            }
        };
        whole("hedge", hedge, &new.hedge, *hedge == new.hedge);
        let same = *rate_limit == new.rate_limit;
        whole("rate_limit", rate_limit, &new.rate_limit, same);
        let (old, now) = (&health.degraded_at, &new.health.degraded_at);
        whole("health.degraded_at", old, now, old == now);
        let same = *when_all_down == new.when_all_down;
        whole("when_all_down", when_all_down, &new.when_all_down, same);
        whole("chaos", chaos, &new.chaos, *chaos == new.chaos);
        let (old, now) = (configured_override, &new.configured_override);
        if old != now {
            let shown = |set: &Option<ConfiguredOverride>| match set {
                Some(ConfiguredOverride { mode, reason }) => format!("{mode} ({reason})"),
                None => "off".to_owned(),
            };
            found.push(format!("override: {} -> {}", shown(old), shown(now)));
        }
        found
    }

    /// Lists the changes that need a restart of the dependency: its workers, and `fallback_only`.
    #[must_use]
    pub fn worker_changes(&self, new: &Self) -> Vec<String> {
        let mut found = Vec::new();
        compare!(
            found,
            "workers.",
            WorkerSettings,
            &self.workers,
            new.workers,
            [
                count,
                placement,
                restart,
                intensity,
                backoff,
                reset_after,
                start_timeout,
                give_up,
                while_restarting,
                drain,
                stuck_after,
                quarantine,
            ]
        );
        if self.fallback_only != new.fallback_only {
            let (old, new) = (self.fallback_only, new.fallback_only);
            found.push(format!("fallback_only: {old} -> {new}"));
        }
        found
    }
}

fn compare_breaker(found: &mut Vec<String>, old: &BreakerSettings, new: &BreakerSettings) {
    compare!(
        found,
        "breaker.",
        BreakerSettings,
        old,
        new,
        [
            window,
            failure_threshold,
            consecutive_failures,
            failure_rate,
            slow_rate,
            slow_call,
            minimum_calls,
            open,
            half_open,
            cancelled,
        ]
    );
}

fn compare_timeout(found: &mut Vec<String>, old: &TimeoutSettings, new: &TimeoutSettings) {
    compare!(
        found,
        "timeout.",
        TimeoutSettings,
        old,
        new,
        [connect, attempt, total, first_byte, idle, keep]
    );
}

fn compare_retry(found: &mut Vec<String>, old: &RetrySettings, new: &RetrySettings) {
    compare!(
        found,
        "retry.",
        RetrySettings,
        old,
        new,
        [
            max_attempts,
            backoff,
            budget,
            respect_retry_after,
            on_open,
            on
        ]
    );
}

fn compare_throttle(found: &mut Vec<String>, old: &ThrottleSettings, new: &ThrottleSettings) {
    compare!(
        found,
        "throttle.",
        ThrottleSettings,
        old,
        new,
        [backoff, max_wait, quota_reset, max]
    );
}

fn compare_bulkhead(found: &mut Vec<String>, old: &BulkheadSettings, new: &BulkheadSettings) {
    compare!(
        found,
        "bulkhead.",
        BulkheadSettings,
        old,
        new,
        [
            max_concurrent,
            max_concurrent_writes,
            max_queue,
            max_wait,
            adaptive
        ]
    );
}

fn compare_classify(found: &mut Vec<String>, old: &ClassifySettings, new: &ClassifySettings) {
    compare!(
        found,
        "classify.",
        ClassifySettings,
        old,
        new,
        [failure, throttled, rejected, misconfigured]
    );
}

fn compare_keys(found: &mut Vec<String>, old: &KeySettings, new: &KeySettings) {
    compare!(found, "keys.", KeySettings, old, new, [max_entries, idle]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::nonzero;

    #[test]
    fn cfg_2_each_change_is_told_with_its_key_and_both_values() {
        let old = DependencySettings::default();
        let mut new = old.clone();
        assert_eq!(old.changes(&new), Vec::<String>::new());
        new.breaker.failure_threshold = Some(nonzero(3));
        new.timeout.attempt = Some(Duration::from_secs(1));
        new.workers.count = nonzero(2);
        assert_eq!(
            old.changes(&new),
            [
                "breaker.failure_threshold: 5 -> 3",
                "timeout.attempt: 5s -> 1s"
            ]
        );
        assert_eq!(old.worker_changes(&new), ["workers.count: 1 -> 2"]);
    }

    #[test]
    fn a_value_that_is_off_says_so() {
        let old = DependencySettings::default();
        let mut new = old.clone();
        new.breaker.failure_rate = crate::Rate::new(0.5).ok();
        new.timeout.total = None;
        new.breaker.half_open.max_admitted = Some(nonzero(4));
        let changes = old.changes(&new);
        assert_eq!(changes[0], "breaker.failure_rate: off -> 0.5");
        let limit = |line: &String| line.contains("max_admitted: 4, rule: Successes(1)");
        assert!(changes.iter().any(limit), "{changes:?}");
        assert_eq!(changes[2], "timeout.total: 15s -> off");
    }
}
