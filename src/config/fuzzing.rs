//! Targets for fuzzers: files, variables and values of a configuration.

use std::time::Duration;

use ::config::{Value, ValueKind};
use breakerbox_policy::RoundedDuration;

use super::{ConfigError, Settings, dotenv, value_type};

/// Longest text that is read: a longer one finds nothing new, and takes longer.
const LONGEST: usize = 16 * 1024;

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(&data[..data.len().min(LONGEST)]).into_owned()
}

/// Reads a file.
pub(crate) fn configuration(data: &[u8]) {
    let loader = Settings::loader().bare().toml(text(data));
    check(&loader.load());
}

/// Reads the lines of a `.env`.
pub(crate) fn variables(data: &[u8]) {
    let content = dotenv::parse(&text(data), ".env");
    let shown = content.problems.iter().map(ToString::to_string);
    let shown = shown.chain(content.warnings.iter().map(ToString::to_string));
    for shown in shown {
        assert!(is_printable(&shown), "{shown:?}");
    }
    let loader = Settings::loader().bare().env_vars(content.variables);
    check(&loader.load());
}

/// Checks that all texts about a configuration can be shown on a terminal.
fn check(loaded: &Result<Settings, ConfigError>) {
    match loaded {
        Ok(settings) => {
            for value in settings.effective() {
                let shown = format!("{} = {} ({})", value.key, value.value, value.origin);
                assert!(is_printable(&shown), "{shown:?}");
            }
            for warning in settings.warnings() {
                let shown = warning.to_string();
                assert!(is_printable(&shown), "{shown:?}");
            }
            // Each type of a section can be shown.
            assert!(!format!("{settings:?}").is_empty());
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            let shown = error.to_string();
            assert!(is_printable(&shown), "{shown:?}");
        }
    }
}

fn is_printable(text: &str) -> bool {
    let is_bad = |letter: char| letter.is_control() && letter != '\n';
    !text.contains(is_bad)
}

/// Reads durations, and writes them for files and for people.
pub(crate) fn durations(data: &[u8]) {
    let text = text(data);
    let given = Value::new(None, ValueKind::String(text.clone()));
    let span = value_type::duration(Duration::ZERO..=Duration::MAX);
    // The default of a span is short for each of them.
    let _ = value_type::long_span(&given, "\"1s\"");
    let _ = (span.given)(&given);
    if let Some(found) = (span.parse)(&given) {
        let shown = (span.show)(&found);
        let again = Value::new(None, ValueKind::String(shown.trim_matches('"').to_owned()));
        assert_eq!((span.parse)(&again), Some(found), "{text:?}, shown {shown}");
        check_rounded(found);
    }
    let bytes = value_type::bytes("\"1 MiB\"", 0..=u64::MAX);
    let _ = (bytes.parse)(&given);
    let mut nanos = [0; 12];
    let length = data.len().min(nanos.len());
    nanos[..length].copy_from_slice(&data[..length]);
    let [a, b, c, d, e, f, g, h, rest @ ..] = nanos;
    let seconds = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let below = u32::from_le_bytes(rest) % 1_000_000_000;
    check_rounded(Duration::new(seconds, below));
}

/// Checks the text for people: two digits at most that are not zero, and a unit.
fn check_rounded(span: Duration) {
    let shown = RoundedDuration(span).to_string();
    let (number, unit) = shown.split_once(' ').expect("a number and its unit");
    assert!(
        ["ns", "µs", "ms", "s", "min", "h", "d"].contains(&unit),
        "{shown}"
    );
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_matches('0');
    assert!(digits.len() <= 2, "{span:?} is shown as {shown}");
}
