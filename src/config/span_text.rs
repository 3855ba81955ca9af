//! Durations in texts, as people write them: `250ms`, `1h 30m`.
//!
//! A capital `M` is a month for the parser, and a minute for most people. It is never taken.

use std::time::Duration;

/// Parses a duration with units, as the configuration does.
///
/// # Errors  The reason, in words: no number, no unit, or `M`, which would be a month.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Some(meant) = minutes(text) {
        return Err(format!("M is a month, did you mean {meant:?}?"));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Returns the text with minutes in place of months that are written `M`; `None` if it has none.
fn minutes(text: &str) -> Option<String> {
    let mut meant = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let (mut before, mut is_month) = (' ', false);
    while let Some(letter) = letters.next() {
        let is_alone = !letters.peek().is_some_and(|next| next.is_alphabetic());
        if letter == 'M' && is_alone && !before.is_alphabetic() {
            is_month = true;
            meant.push('m');
        } else {
            meant.push(letter);
        }
        before = letter;
    }
    is_month.then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_7_a_capital_m_is_no_minute() {
        for text in ["5M", "1h 5M", "5 M", "1M30s"] {
            let error = parse_duration(text).unwrap_err();
            let meant = text.replace('M', "m");
            assert_eq!(error, format!("M is a month, did you mean {meant:?}?"));
        }
        for (text, seconds) in [("5m", 300), ("1h 30m", 5400), ("2min", 120)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert!(parse_duration("2 months").is_ok());
        assert!(parse_duration("soon").is_err());
    }
}
