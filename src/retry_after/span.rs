//! Spans and moments in the spellings of services: numbers, `6m0s`, dates, Unix time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;

/// A second, and a millisecond, in seconds.
pub(super) const SECOND: f64 = 1.0;
pub(super) const MILLISECOND: f64 = 1e-3;

/// Returns a span of so many seconds; the longest span if it is too long for one.
pub(super) fn seconds(count: f64) -> Option<Duration> {
    let span = || Duration::try_from_secs_f64(count).unwrap_or(Duration::MAX);
    (count >= 0.0).then(span)
}

/// Returns a plain decimal number, without a sign or an exponent.
pub(super) fn number(text: &str) -> Option<f64> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain { text.parse().ok() } else { None }
}

/// Returns the wait that a text names: a number of `unit`, a span with units, or a date. A past
/// date is no hint: neither to wait nor to retry at once.
pub(super) fn wait(text: &str, unit: f64, now: Timestamp) -> Option<Duration> {
    let text = text.trim().trim_matches('"').trim();
    let whole = |(span, rest): (Duration, &str)| rest.is_empty().then_some(span);
    let span = leading_span(text, unit).and_then(whole);
    span.or_else(|| iso_span(text)).or_else(|| {
        let until = date(text)?.duration_since(now);
        Duration::try_from(until).ok()
    })
}

/// Returns the time until a reset: as [`wait`], or Unix time in seconds, or in a smaller unit.
pub(super) fn until_reset(text: &str, unit: f64, now: Timestamp) -> Option<Duration> {
    let text = text.trim().trim_matches('"').trim();
    match number(text).and_then(unix_seconds) {
        // A number of milliseconds is taken for a point in time only if no span is as long.
        Some(at) if unit >= SECOND || number(text) >= Some(1e11) => {
            let now = now.as_duration().as_secs_f64();
            (at > now).then(|| seconds(at - now)).flatten()
        }
        _ => wait(text, unit, now),
    }
}

/// Returns the seconds of a number that is Unix time, in the unit that its size suggests; `None`
/// for a number that is a span.
fn unix_seconds(number: f64) -> Option<f64> {
    let per_second = match number {
        ..1e8 => return None,
        ..1e11 => 1.0,
        ..1e14 => 1e3,
        ..1e17 => 1e6,
        _ => 1e9,
    };
    Some(number / per_second)
}

/// Returns the span that a text begins with, such as `6m0s` or `30 seconds`, and the text after it.
/// A number without a unit is one of `unit`.
pub(super) fn leading_span(text: &str, unit: f64) -> Option<(Duration, &str)> {
    let mut total = None;
    let mut rest = text;
    loop {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (digits, after) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(count) = number(digits) else { break };
        let word = after.trim_start();
        let end = word.find(|letter: char| !letter.is_alphabetic());
        let (word, behind) = word.split_at(end.unwrap_or(word.len()));
        if let Some(unit) = unit_of(word) {
            total = Some(total.unwrap_or(0.0) + count * unit);
            rest = behind.trim_start();
            continue;
        }
        if word.is_empty() && total.is_none() {
            total = Some(count * unit);
            rest = after;
        }
        break;
    }
    Some((seconds(total?)?, rest))
}

/// Returns a unit in seconds.
fn unit_of(word: &str) -> Option<f64> {
    let word = word.to_lowercase();
    Some(match word.as_str() {
        "d" | "day" | "days" => 86_400.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => MILLISECOND,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

/// Returns a span in the form of ISO 8601, such as `PT30S`.
fn iso_span(text: &str) -> Option<Duration> {
    let span: jiff::SignedDuration = text.starts_with(['P', 'p']).then(|| text.parse().ok())??;
    Duration::try_from(span).ok()
}

/// Returns a moment in one of the three forms of HTTP (RFC 9110, section 5.6.7), or of RFC 3339.
fn date(text: &str) -> Option<Timestamp> {
    // Weekdays are not looked at: only the date counts.
    const FIXED: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    if let Ok(date) = FIXED.parse_timestamp(text) {
        return Some(date);
    }
    if let Ok(date) = text.parse() {
        return Some(date);
    }
    let (_, rest) = text.split_once(' ')?;
    let fixed = || DateTime::strptime("%d %b %Y %H:%M:%S GMT", rest);
    let rfc_850 = || DateTime::strptime("%d-%b-%y %H:%M:%S GMT", rest);
    let asctime = || DateTime::strptime("%b %e %H:%M:%S %Y", rest);
    let date = fixed().or_else(|_| rfc_850()).or_else(|_| asctime()).ok()?;
    // Only the last day of the year 9999 is no timestamp.
    Some(TimeZone::UTC.to_timestamp(date).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-06T08:49:30Z".parse().unwrap()
    }

    fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn lim_1_e10b_a_wait_is_a_number_a_span_or_a_date() {
        for (text, millis) in [
            ("7", 7_000),
            (" 1.5 ", 1_500),
            ("0", 0),
            ("\"30\"", 30_000),
            ("3.5s", 3_500),
            ("6m0s", 360_000),
            ("2m59.56s", 179_560),
            ("120ms", 120),
            ("1h2m3s", 3_723_000),
            ("30 seconds", 30_000),
            ("1 minute 5 seconds", 65_000),
            ("PT1M30S", 90_000),
            ("Fri, 06 Nov 2026 08:49:37 GMT", 7_000),
            ("Thu, 06 Nov 2026 08:49:37 GMT", 7_000),
            ("Friday, 06-Nov-26 08:49:37 GMT", 7_000),
            ("Fri Nov  6 08:49:37 2026", 7_000),
            ("2026-11-06T08:49:37Z", 7_000),
            ("2026-11-06T09:49:37+01:00", 7_000),
        ] {
            assert_eq!(wait(text, SECOND, now()), ms(millis), "{text}");
        }
        for text in [
            "",
            "soon",
            "-1",
            "+1",
            "1e3",
            "inf",
            "NaN",
            ".",
            "1.2.3",
            "5 apples",
            "Fri, 06 Nov 2020 08:49:37 GMT",
        ] {
            assert_eq!(wait(text, SECOND, now()), None, "{text}");
        }
        assert_eq!(wait("1500", MILLISECOND, now()), ms(1_500));
        assert_eq!(wait("3s", MILLISECOND, now()), ms(3_000));
    }

    #[test]
    fn lim_1_e10a_no_number_overflows() {
        let nines = "9".repeat(400);
        let end = wait("Fri, 31 Dec 9999 23:59:59 GMT", SECOND, now());
        assert!(end > Some(Duration::from_secs(1 << 37)), "{end:?}");
        for text in ["18446744073709551615", "99999999999999999999999", &nines] {
            let long = wait(text, SECOND, now());
            assert!(
                long >= Some(Duration::from_secs(1 << 60)),
                "{text}: {long:?}"
            );
            assert!(wait(text, MILLISECOND, now()).is_some());
            assert!(until_reset(text, SECOND, now()).is_some());
        }
        assert_eq!(
            wait("18446744073709551615d", SECOND, now()),
            Some(Duration::MAX)
        );
    }

    #[test]
    fn lim_1_e10b_a_reset_is_a_span_or_a_point_in_time() {
        let at = now().as_second() + 7;
        for text in [
            "7".to_owned(),
            "7s".to_owned(),
            at.to_string(),
            format!("{at}.0"),
            format!("{at}000"),
            format!("{at}000000"),
            "2026-11-06T08:49:37Z".to_owned(),
        ] {
            let hint = until_reset(&text, SECOND, now()).map(|hint| hint.as_secs_f64().round());
            assert_eq!(hint, Some(7.0), "{text}");
        }
        assert_eq!(until_reset("1700000000", SECOND, now()), None, "past");
        assert_eq!(
            until_reset("200000000", MILLISECOND, now()),
            ms(200_000_000)
        );
        assert_eq!(until_reset("7000", MILLISECOND, now()), ms(7_000));
    }
}
