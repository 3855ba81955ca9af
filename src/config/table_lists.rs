//! Lists of tables in a variable or a flag, as JSON: `[{"kind": "stale_cache"}]`.
//!
//! Other values are plain texts there. A list of tables has no such form, and `[0]` in the name of a
//! variable is not allowed by every shell.

use config::{Map, Value, ValueKind};

use super::problem::Problem;
use super::source::ValueOrigin;

/// Maximum length of a text, in bytes.
const MAX_TEXT: usize = 100_000;
/// Maximum number of tables.
const MAX_TABLES: usize = 100;
/// Allowed texts.
const ALLOWED: &str = "a list of tables as JSON, such as [{\"kind\": \"stale_cache\"}]";

/// Returns true if the value of a key is a list of tables.
pub(super) fn is_table_list(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    matches!(parts[..], ["dependencies", _, "fallback"])
}

/// Reads a list of tables.
///
/// # Errors  A problem with the name of the variable, and nothing of its text: it may hold a secret.
pub(super) fn read(key: &str, text: &str, origin: &ValueOrigin) -> Result<Value, Box<Problem>> {
    let problem = |reason: String| {
        Box::new(Problem {
            key: key.to_owned(),
            given: None,
            reason: Some(reason),
            allowed: ALLOWED.to_owned(),
            origin: origin.place.clone(),
            excerpt: None,
        })
    };
    // EDGE-7: bounded before memory is taken by it.
    if text.len() > MAX_TEXT {
        return Err(problem(format!("it has more than {MAX_TEXT} bytes")));
    }
    let parsed = serde_json::from_str(text);
    let parsed: serde_json::Value = parsed.map_err(|error| problem(format!("no JSON: {error}")))?;
    let serde_json::Value::Array(tables) = parsed else {
        return Err(problem("it is no list".to_owned()));
    };
    if tables.len() > MAX_TABLES {
        return Err(problem(format!("it has more than {MAX_TABLES} tables")));
    }
    for (index, table) in tables.iter().enumerate() {
        let has_keys = table.as_object().is_some_and(|table| !table.is_empty());
        if !has_keys {
            return Err(problem(format!("[{index}] is no table with keys")));
        }
    }
    Ok(value_of(serde_json::Value::Array(tables), origin))
}

fn value_of(json: serde_json::Value, origin: &ValueOrigin) -> Value {
    let kind = match json {
        serde_json::Value::Null => ValueKind::Nil,
        serde_json::Value::Bool(truth) => ValueKind::Boolean(truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => ValueKind::I64(number),
            None => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => ValueKind::String(text),
        serde_json::Value::Array(values) => {
            let values = values.into_iter().map(|value| value_of(value, origin));
            ValueKind::Array(values.collect())
        }
        serde_json::Value::Object(table) => {
            let entries = table.into_iter();
            let entries = entries.map(|(key, value)| (key, value_of(value, origin)));
            ValueKind::Table(entries.collect::<Map<String, Value>>())
        }
    };
    Value::new(Some(&origin.encode()), kind)
}
