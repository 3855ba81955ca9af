//! Hints in headers: `Retry-After` and its relatives, and the resets of rate limits.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

use super::span::{MILLISECOND, SECOND, until_reset, wait};
use crate::grpc_details::{DETAILS, wait_in_text};

/// The headers that name a wait, each with the unit of its plain numbers in seconds.
const WAITS: [(&str, f64); 7] = [
    ("retry-after", SECOND),
    ("x-retry-after", SECOND),
    ("retry-after-seconds", SECOND),
    ("retry-after-ms", MILLISECOND),
    ("x-retry-after-ms", MILLISECOND),
    // Azure.
    ("x-ms-retry-after-ms", MILLISECOND),
    // gRPC; a negative number there forbids retries and names no time.
    ("grpc-retry-pushback-ms", MILLISECOND),
];

/// Endings of the name of a reset that are no part of the name of its limit.
const SUFFIXES: [&str; 7] = ["-after", "-ms", "-in", "-at", "-time", "-seconds", "-sec"];

/// Returns the largest hint.
pub(super) fn largest(status: u16, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let in_waits = waits(headers, now);
    // A limit that is reported along with any other answer has nothing to do with it.
    if !matches!(status, 429 | 503) {
        return in_waits;
    }
    let drafted = texts(headers, "ratelimit").filter_map(|line| of_draft(line, now));
    in_waits
        .max(drafted.max())
        .max(of_resets(headers, now, true))
}

/// Returns the largest wait in the headers that name one.
pub(super) fn waits(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let in_waits = WAITS.into_iter().flat_map(|(name, unit)| {
        let lines = texts(headers, name);
        lines.filter_map(move |line| of_list(line, |text| wait(text, unit, now)))
    });
    // LIM-1: gRPC says it in a message of its own.
    let in_details = texts(headers, DETAILS).filter_map(wait_in_text);
    in_waits.max().max(in_details.max())
}

/// Returns the last reset of the limits of which nothing remains; a limit that does not say what
/// remains is left out.
#[cfg(feature = "model")]
pub(super) fn used_up_resets(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    of_resets(headers, now, false)
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter();
    lines.filter_map(|line| line.to_str().ok())
}

/// Reads a value as a whole, or else the largest part of it between commas.
fn of_list(line: &str, read: impl Fn(&str) -> Option<Duration>) -> Option<Duration> {
    read(line).or_else(|| line.split(',').filter_map(read).max())
}

/// Returns the last reset of the rate limits that are used up, such as
/// `x-ratelimit-reset-requests`. `with_unsaid`: a limit that does not say what remains is one too.
fn of_resets(headers: &HeaderMap, now: Timestamp, with_unsaid: bool) -> Option<Duration> {
    let resets = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        let is_limit = name.contains("ratelimit") || name.contains("rate-limit");
        if !is_limit || !name.contains("-reset") {
            return None;
        }
        let unit = if name.ends_with("-ms") {
            MILLISECOND
        } else {
            SECOND
        };
        let left = remaining(headers, name);
        if left.is_none() && !with_unsaid {
            return None;
        }
        let value = value.to_str().ok()?;
        // Several windows in one line, each with what remains of it: `1, 0` and `1, 3600`.
        let parts = || value.split(',').zip(left.unwrap_or_default().split(','));
        let is_list = value.split(',').count() == left.map_or(0, |left| left.split(',').count());
        if is_list {
            let of_used_up = |(reset, left)| {
                let is_used_up = is_used_up(Some(left));
                is_used_up.then(|| until_reset(reset, unit, now)).flatten()
            };
            return parts().filter_map(of_used_up).max();
        }
        let is_used_up = left.is_none_or(|left| left.split(',').any(|left| is_used_up(Some(left))));
        is_used_up
            .then(|| of_list(value, |text| until_reset(text, unit, now)))
            .flatten()
    });
    resets.max()
}

/// Returns what remains of the limit that a reset belongs to, if it is said.
fn remaining<'a>(headers: &'a HeaderMap, reset: &str) -> Option<&'a str> {
    let find = |name: &str| {
        headers
            .get(name.replace("-reset", "-remaining"))?
            .to_str()
            .ok()
    };
    find(reset).or_else(|| {
        let mut suffixes = SUFFIXES.into_iter();
        find(suffixes.find_map(|suffix| reset.strip_suffix(suffix))?)
    })
}

/// Returns true if nothing remains, or if that is not said.
fn is_used_up(left: Option<&str>) -> bool {
    let left = left.and_then(|left| left.trim().parse::<f64>().ok());
    left.is_none_or(|left| left <= 0.0)
}

/// Returns the hint of the header `RateLimit`, in the forms of its drafts:
/// `"default";r=0;t=30` and `limit=10, remaining=0, reset=30`.
fn of_draft(line: &str, now: Timestamp) -> Option<Duration> {
    // The names of policies are in quotes, and may contain anything.
    let plain: String = line.split('"').step_by(2).collect();
    let judge = |(left, reset): (Option<&str>, Option<&str>)| {
        let reset = reset.filter(|_| is_used_up(left))?;
        until_reset(reset, SECOND, now)
    };
    let pair = |text: &str, left: &str, reset: &str, between: &[char]| {
        let value = |name: &str| {
            let mut parts = text.split(between).filter_map(|part| part.split_once('='));
            let found = parts.find(|(one, _)| one.trim() == name);
            found.map(|(_, value)| value.trim().to_owned())
        };
        let (left, reset) = (value(left), value(reset));
        judge((left.as_deref(), reset.as_deref()))
    };
    let policies = plain
        .split(',')
        .filter_map(|one| pair(one, "r", "t", &[';']));
    policies
        .max()
        .max(pair(&plain, "remaining", "reset", &[',', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_with(status: u16, lines: &[(&'static str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let now = "2026-11-06T08:49:30Z".parse().unwrap();
        let hint = largest(status, &headers, now)?;
        Some(u64::try_from(hint.as_millis()).unwrap_or(u64::MAX))
    }

    fn hint(lines: &[(&'static str, &str)]) -> Option<u64> {
        hint_with(429, lines)
    }

    #[test]
    fn lim_1_e10b_a_wait_is_read_from_each_header_that_names_one() {
        for (name, value, millis) in [
            ("retry-after", "7", 7_000),
            ("retry-after", "1.5", 1_500),
            ("retry-after", "Friday, 06-Nov-26 08:49:37 GMT", 7_000),
            ("retry-after", "2, 7", 7_000),
            ("retry-after-ms", "2500", 2_500),
            ("retry-after-ms", "2500.5", 2_500),
            ("x-ms-retry-after-ms", "2500", 2_500),
            ("grpc-retry-pushback-ms", "2500", 2_500),
        ] {
            assert_eq!(hint(&[(name, value)]), Some(millis), "{name}: {value}");
            assert_eq!(hint_with(500, &[(name, value)]), Some(millis), "{name}");
        }
        assert_eq!(hint(&[("grpc-retry-pushback-ms", "-1")]), None);
        // A RetryInfo of 7 seconds, as gRPC writes it.
        let details = "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIBw";
        assert_eq!(hint(&[("grpc-status-details-bin", details)]), Some(7_000));
        let both = [("retry-after", "2"), ("retry-after", "7")];
        assert_eq!(hint(&both), Some(7_000), "of two lines the larger one");
        let both = [("retry-after", "2"), ("retry-after-ms", "7000")];
        assert_eq!(hint(&both), Some(7_000));
    }

    #[test]
    fn lim_1_e10b_a_reset_counts_if_nothing_remains_or_that_is_unsaid() {
        for (name, value) in [
            ("x-ratelimit-reset-requests", "7s"),
            ("x-ratelimit-reset-tokens", "0m7s"),
            ("x-ratelimit-reset", "7"),
            ("x-ratelimit-reset", "1793954977"),
            ("x-ratelimit-reset", "1793954977000"),
            ("x-rate-limit-reset", "1793954977"),
            ("x-ratelimit-reset-after", "7.0"),
            ("ratelimit-reset", "7"),
            ("x-ratelimit-reset-ms", "7000"),
            ("anthropic-ratelimit-tokens-reset", "2026-11-06T08:49:37Z"),
        ] {
            assert_eq!(hint(&[(name, value)]), Some(7_000), "{name}: {value}");
            assert_eq!(hint_with(503, &[(name, value)]), Some(7_000), "{name}");
            assert_eq!(hint_with(500, &[(name, value)]), None, "{name}");
        }
        let limits = [
            ("x-ratelimit-reset-requests", "60s"),
            ("x-ratelimit-remaining-requests", "12"),
            ("x-ratelimit-reset-tokens", "7s"),
            ("x-ratelimit-remaining-tokens", "0"),
        ];
        assert_eq!(hint(&limits), Some(7_000), "only the limit that is used up");
        let windows = [
            ("x-ratelimit-reset", "7, 1419704"),
            ("x-ratelimit-remaining", "0, 14523"),
        ];
        assert_eq!(hint(&windows), Some(7_000), "only the window");
        for name in ["x-ratelimit-reset", "x-ratelimit-reset-after"] {
            let left = [(name, "7"), ("x-ratelimit-remaining", "3")];
            assert_eq!(hint(&left), None);
        }
    }

    #[test]
    fn lim_1_e10b_the_drafts_of_a_rate_limit_header() {
        for (value, millis) in [
            ("\"default\";r=0;t=7", Some(7_000)),
            ("\"a,b;t=99\";r=0;t=7, \"day\";r=5;t=3600", Some(7_000)),
            ("\"default\";t=7", Some(7_000)),
            ("\"default\";r=3;t=7", None),
            ("limit=10, remaining=0, reset=7", Some(7_000)),
            ("limit=10, remaining=4, reset=7", None),
        ] {
            assert_eq!(hint(&[("ratelimit", value)]), millis, "{value}");
        }
        assert_eq!(hint_with(500, &[("ratelimit", "\"a\";r=0;t=7")]), None);
    }

    #[test]
    fn lim_1_e10b_other_headers_are_no_hints() {
        for (name, value) in [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining", "0"),
            ("date", "Fri, 06 Nov 2026 08:49:37 GMT"),
            ("x-password-reset", "7"),
            ("retry-after", "soon"),
        ] {
            assert_eq!(hint(&[(name, value)]), None, "{name}");
        }
    }
}
