//! Differences between two sets of settings, as text by section.

use std::fmt::Debug;

use super::{
    BreakerSettings, BulkheadSettings, ClassifySettings, DependencySettings, KeySettings,
    RetrySettings, ThrottleSettings, TimeoutSettings, WorkerSettings,
};

/// Compares two structs of one type field by field. Every field must be named, or it does not
/// compile: a change of a forgotten setting would not be reported.
macro_rules! compare {
    ($found:expr, $section:literal, $type:ident, $old:expr, $new:expr, [$($field:ident),* $(,)?]) => {{
        let $type { $($field),* } = $old;
        $(
            if *$field != $new.$field {
                let key = concat!($section, stringify!($field));
                $found.push(format!("{key}: {:?} -> {:?}", $field, $new.$field));
            }
        )*
    }};
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
            keys,
            when_all_down,
            chaos,
            fallback_only: _,
        } = self;
        compare_breaker(&mut found, breaker, &new.breaker);
        compare!(
            found,
            "timeout.",
            TimeoutSettings,
            timeout,
            new.timeout,
            [connect, attempt, total, first_byte, idle,]
        );
        compare!(
            found,
            "retry.",
            RetrySettings,
            retry,
            new.retry,
            [
                max_attempts,
                backoff,
                budget,
                respect_retry_after,
                on_open,
                on,
            ]
        );
        compare!(
            found,
            "throttle.",
            ThrottleSettings,
            throttle,
            new.throttle,
            [backoff, max_wait, quota_reset,]
        );
        compare!(
            found,
            "bulkhead.",
            BulkheadSettings,
            bulkhead,
            new.bulkhead,
            [
                max_concurrent,
                max_concurrent_writes,
                max_queue,
                max_wait,
                adaptive,
            ]
        );
        compare!(
            found,
            "classify.",
            ClassifySettings,
            classify,
            new.classify,
            [failure, throttled, rejected, misconfigured,]
        );
        compare!(
            found,
            "keys.",
            KeySettings,
            keys,
            new.keys,
            [max_entries, idle]
        );
        let mut whole = |key: &str, old: &dyn Debug, now: &dyn Debug, same: bool| {
            if !same {
                found.push(format!("{key}: {old:?} -> {now:?}"));
            }
        };
        whole("hedge", hedge, &new.hedge, *hedge == new.hedge);
        let same = *rate_limit == new.rate_limit;
        whole("rate_limit", rate_limit, &new.rate_limit, same);
        let same = *when_all_down == new.when_all_down;
        whole("when_all_down", when_all_down, &new.when_all_down, same);
        whole("chaos", chaos, &new.chaos, *chaos == new.chaos);
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
                "breaker.failure_threshold: Some(5) -> Some(3)",
                "timeout.attempt: Some(5s) -> Some(1s)"
            ]
        );
        assert_eq!(old.worker_changes(&new), ["workers.count: 1 -> 2"]);
    }
}
