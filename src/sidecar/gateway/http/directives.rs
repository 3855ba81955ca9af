//! Directives of requests and responses about caching (RFC 9111, sections 4.2 and 5.2; RFC 5861).
//!
//! The crate `http-cache-semantics` was considered and is not used. It decides when to ask the
//! origin again, and this cache always asks first. It reads the names of directives by their exact
//! case, skips lines that are not ASCII, keeps no answer to a request with credentials, and does
//! not know `stale-if-error`. What is left of it is shorter here than its adaptation.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderName, PRAGMA};
use jiff::Timestamp;

/// Response directives for caches nearer to the caller (RFC 9213, Edge Architecture). A prohibition
/// in one of them holds here too.
const TARGETED: [HeaderName; 3] = [
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("cloudflare-cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
];

/// Response directives with which nothing is kept. The second half only forbids to serve a stale
/// answer; this cache serves no others. `s-maxage` implies `proxy-revalidate`.
const FORBIDDING: [&str; 6] = [
    "no-store",
    "private",
    "no-cache",
    "must-revalidate",
    "proxy-revalidate",
    "s-maxage",
];

/// Directives of one message.
#[derive(Debug, Default)]
pub(crate) struct CacheDirectives(Vec<(String, Option<String>)>);

impl CacheDirectives {
    /// Reads the directives of a request.
    pub(crate) fn of_request(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        read.add(headers, &CACHE_CONTROL);
        if !headers.contains_key(CACHE_CONTROL) {
            read.add(headers, &PRAGMA);
        }
        read
    }

    /// Reads the directives of a response.
    pub(crate) fn of_response(headers: &HeaderMap) -> Self {
        let mut read = Self::of_request(headers);
        for name in &TARGETED {
            read.add(headers, name);
        }
        read
    }

    /// Splits at every comma and semicolon, also within quotes: a prohibition is rather seen where
    /// there is none than overlooked.
    fn add(&mut self, headers: &HeaderMap, name: &HeaderName) {
        for line in headers.get_all(name) {
            let line = String::from_utf8_lossy(line.as_bytes());
            for part in line.split([',', ';']) {
                let (name, value) = match part.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (part, None),
                };
                let plain = |text: &str| {
                    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '"');
                    text.to_ascii_lowercase()
                };
                self.0.push((plain(name), value.map(plain)));
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(one, _)| one == name)
    }

    /// Returns true if a response must not be kept, or not be served later.
    pub(crate) fn forbid_keeping(&self) -> bool {
        FORBIDDING.iter().any(|name| self.has(name))
    }

    /// Returns the seconds of a directive: the least of several, and zero if they are not a number.
    fn seconds(&self, name: &str) -> Option<Duration> {
        let named = self.0.iter().filter(|(one, _)| one == name);
        let values = named.map(|(_, value)| seconds(value.as_deref().unwrap_or_default()));
        values.min()
    }
}

/// Returns a number of seconds; zero if it is none, and the largest if it has too many digits.
fn seconds(text: &str) -> Duration {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let most = u64::from(u32::MAX);
    let seconds = if is_number {
        text.parse().unwrap_or(most).min(most)
    } else {
        0
    };
    Duration::from_secs(seconds)
}

/// Returns the time that a response had spent in other caches (`Age`).
pub(crate) fn age_on_arrival(headers: &HeaderMap) -> Duration {
    let lines = headers.get_all(AGE).iter();
    let ages = lines.map(|line| seconds(line.to_str().unwrap_or_default().trim()));
    ages.max().unwrap_or_default()
}

/// Returns the age of a response that has come by now: the time since its `Date`, or what other
/// caches say of it (`Age`), whichever is longer.
///
/// # Source  RFC 9111, section 4.2.3.
pub(crate) fn initial_age(headers: &HeaderMap, now: Timestamp) -> Duration {
    let since = date(headers, &DATE).flatten();
    let since = since.and_then(|made| Duration::try_from(now.duration_since(made)).ok());
    // EDGE-2: a server that keeps answers itself may tell their age by `Date` alone.
    age_on_arrival(headers).max(since.unwrap_or_default())
}

/// Returns the date in a header: `None` without it, and `Some(None)` if it is no date.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Option<Timestamp>> {
    let line = headers.get(name)?;
    let parsed = line.to_str().ok().map(jiff::fmt::rfc2822::parse);
    Some(parsed.and_then(Result::ok).map(|date| date.timestamp()))
}

/// Returns the time for which a response says to be fresh, if it says so.
fn lifetime(headers: &HeaderMap, said: &CacheDirectives) -> Option<Duration> {
    if let Some(span) = said.seconds("max-age") {
        return Some(span);
    }
    // What is no date, such as 0, has passed.
    let span = match (date(headers, &EXPIRES)?, date(headers, &DATE).flatten()) {
        (Some(end), Some(begin)) => Duration::try_from(end.duration_since(begin)).ok(),
        _ => None,
    };
    Some(span.unwrap_or_default())
}

/// Returns true if the request takes a kept response of this age, and the response allows it.
/// `age`: since the origin made it.
pub(crate) fn may_serve(asked: &CacheDirectives, headers: &HeaderMap, age: Duration) -> bool {
    let said = CacheDirectives::of_response(headers);
    let explicit = lifetime(headers, &said);
    let fresh = explicit.unwrap_or_default();
    let within = |bound: Option<Duration>| bound.is_none_or(|bound| age <= bound);
    let beyond = |name: &str, by: &CacheDirectives| by.seconds(name).map(|span| fresh + span);
    let max_age = asked.seconds("max-age");
    let takes_stale = asked.has("max-stale") || asked.has("stale-if-error");
    let is_unlimited = asked
        .0
        .iter()
        .any(|(name, value)| name == "max-stale" && value.is_none());
    let is_stale = explicit.is_some_and(|fresh| age > fresh);
    let is_fresh_for = |span: Duration| age + span <= fresh;
    !asked.has("no-cache")
        && within(max_age)
        // RFC 9111, section 5.2.1.1: a caller with `max-age` wants no stale response either.
        && (max_age.is_none() || takes_stale || !is_stale)
        && (is_unlimited || within(beyond("max-stale", asked)))
        && asked.seconds("min-fresh").is_none_or(is_fresh_for)
        && within(beyond("stale-if-error", asked))
        && within(beyond("stale-if-error", &said))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::sidecar::gateway::headers::map;

    #[test]
    fn edge_2_e2c_prohibitions_are_seen_in_every_spelling() {
        for line in [
            "no-store",
            "No-Store",
            "max-age=60,NO-CACHE",
            "private=\"set-cookie, x-user\"",
            "public ,\tmust-revalidate",
            "max-age=60; private",
            "s-maxage = 60",
            "x=\"a, no-store\"",
            "\"private\"",
        ] {
            let said = CacheDirectives::of_response(&map(&[("cache-control", line)]));
            assert!(said.forbid_keeping(), "{line}");
        }
        for line in [
            "public",
            "max-age=0",
            "max-age=60, immutable",
            "no-transform",
        ] {
            let said = CacheDirectives::of_response(&map(&[("cache-control", line)]));
            assert!(!said.forbid_keeping(), "{line}");
        }
        let bytes = HeaderValue::from_bytes(b"x=\xff, no-store").unwrap();
        let headers = HeaderMap::from_iter([(CACHE_CONTROL, bytes)]);
        assert!(CacheDirectives::of_response(&headers).forbid_keeping());
    }

    #[test]
    fn edge_2_e2c_both_sides_bound_the_age() {
        let date = ("date", "Fri, 06 Nov 2026 08:49:37 GMT");
        let minute = ("expires", "Fri, 06 Nov 2026 08:50:37 GMT");
        let control = |line| ("cache-control", line);
        type DirectiveCase<'a> = (&'static str, &'a [(&'static str, &'static str)], u64, bool);
        let cases: &[DirectiveCase<'_>] = &[
            ("", &[], 3000, true),
            ("max-age=10", &[], 10, true),
            ("max-age=10", &[], 11, false),
            ("max-age=99", &[control("max-age=5")], 6, false),
            ("max-age=99, max-stale", &[control("max-age=5")], 6, true),
            ("max-age=x", &[], 1, false),
            ("max-stale=5", &[control("max-age=5")], 10, true),
            ("max-stale=5", &[control("max-age=5")], 11, false),
            ("max-stale", &[control("max-age=5")], 3000, true),
            ("min-fresh=5", &[control("max-age=10")], 5, true),
            ("min-fresh=5", &[control("max-age=10")], 6, false),
            ("min-fresh=5", &[], 0, false),
            ("min-fresh=50", &[date, minute], 10, true),
            ("min-fresh=50", &[date, minute], 11, false),
            ("min-fresh=50", &[date, ("expires", "0")], 0, false),
            ("no-cache", &[control("max-age=10")], 0, false),
            ("", &[control("max-age=5, stale-if-error=5")], 10, true),
            ("", &[control("max-age=5, stale-if-error=5")], 11, false),
            ("stale-if-error=1", &[control("max-age=5")], 7, false),
        ];
        for (asked, said, age, serves) in cases {
            let mut request = HeaderMap::new();
            if !asked.is_empty() {
                request.insert(CACHE_CONTROL, HeaderValue::from_static(asked));
            }
            let asked = CacheDirectives::of_request(&request);
            let age = Duration::from_secs(*age);
            assert_eq!(
                may_serve(&asked, &map(said), age),
                *serves,
                "{asked:?} {said:?} {age:?}"
            );
        }
        let pragma = CacheDirectives::of_request(&map(&[("pragma", "no-cache")]));
        assert!(!may_serve(&pragma, &HeaderMap::new(), Duration::ZERO));
    }

    #[test]
    fn edge_2_e2c_the_age_on_arrival_is_read() {
        assert_eq!(
            age_on_arrival(&map(&[("age", "7")])),
            Duration::from_secs(7)
        );
        assert_eq!(age_on_arrival(&map(&[("age", "-7")])), Duration::ZERO);
        let long = map(&[("age", "99999999999999999999999")]);
        assert_eq!(
            age_on_arrival(&long),
            Duration::from_secs(u64::from(u32::MAX))
        );
    }

    #[test]
    fn edge_2_the_age_counts_from_the_date_of_a_response() {
        let now = "2026-11-06T08:50:37Z".parse().unwrap();
        let date = ("date", "Fri, 06 Nov 2026 08:49:37 GMT");
        for (headers, seconds) in [
            (&[date][..], 60),
            (&[date, ("age", "7")], 60),
            (&[date, ("age", "70")], 70),
            (
                &[("date", "Fri, 06 Nov 2026 09:00:00 GMT"), ("age", "7")],
                7,
            ),
            (&[("date", "yesterday")], 0),
            (&[], 0),
        ] {
            let age = initial_age(&map(headers), now);
            assert_eq!(age, Duration::from_secs(seconds), "{headers:?}");
        }
    }
}
