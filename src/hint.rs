//! What `Retry-After` says: seconds, or a date. Who heeds it is not decided here.

use std::time::Duration;

use jiff::Timestamp;

/// How long from now on; `None` for what is no hint, and for a date that is past.
pub(crate) fn retry_after(line: &str) -> Option<Duration> {
    of_line(line.trim(), Timestamp::now())
}

fn of_line(line: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = line.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(line).ok()?.timestamp();
    // What is past is no hint to wait, and none to come at once either.
    Duration::try_from(date.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lim_1_a_hint_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-06T08:49:30Z".parse().unwrap();
        let hint = |line| of_line(line, now);
        assert_eq!(hint("7"), Some(Duration::from_secs(7)));
        let date = "Fri, 06 Nov 2026 08:49:37 GMT";
        assert_eq!(hint(date), Some(Duration::from_secs(7)));
        assert_eq!(hint("Fri, 06 Nov 2020 08:49:37 GMT"), None);
        assert_eq!(hint("soon"), None);
        assert_eq!(hint("-1"), None);
    }
}
