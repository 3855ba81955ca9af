//! Numbers as other languages write them, with the ones that were meant. Nothing here reads a value.

use config::{Value, ValueKind};

use super::span_text::parse_duration;

/// Returns the advice about a whole number that is written as a fraction, such as `5.0`.
pub(super) fn with_point(value: &Value) -> Option<String> {
    let number = match &value.kind {
        ValueKind::Float(number) => *number,
        ValueKind::String(text) if text.contains('.') => text.trim().parse().ok()?,
        _ => return None,
    };
    let is_whole = number.fract() == 0.0 && (1.0..=1e6).contains(&number);
    is_whole.then(|| format!("did you mean {number:.0}, without a point?"))
}

/// Returns the advice about a duration with a comma in place of a point, such as `1,5s`.
pub(super) fn with_comma(text: &str) -> Option<String> {
    let meant = text.replace(',', ".");
    let is_meant = meant.trim().parse::<f64>().is_ok() || parse_duration(&meant).is_ok();
    let is_comma = text.matches(',').count() == 1 && is_meant;
    is_comma.then(|| format!("did you mean {meant:?}, with a point?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_1_a_number_with_a_point_or_a_comma_too_many_is_told() {
        let point = |value: Value| with_point(&value).unwrap_or_default();
        assert!(point(Value::new(None, 5.0)).contains("did you mean 5,"));
        assert!(point(Value::new(None, "5.0")).contains("did you mean 5,"));
        assert_eq!(point(Value::new(None, 5.5)), "");
        assert_eq!(point(Value::new(None, 0.0)), "");
        assert!(with_comma("1,5s").unwrap().contains("\"1.5s\""));
        assert_eq!(with_comma("1,5,6s"), None);
        assert_eq!(with_comma("soon, 5s"), None);
    }
}
