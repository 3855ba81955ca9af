//! Advice about a value in place of a section, a table in place of a list, a value in quotes, and a word
//! that is nearly an allowed one.
//!
//! Nothing here shows a text that was given, unless it is a duration: it may be a secret.

use breakerbox_actors::nearest_word;
use config::{Value, ValueKind};
use serde_json::Value as Json;

use super::known_keys::{KnownKeys, folded, last_of};
use super::table_lists::is_table_list;
use super::variable_names::{PREFIX, is_of_variable};
use super::variable_spelling::is_owner;

/// The key that a value in place of a section is most likely meant for.
const MAIN_KEYS: [(&str, &str, &str); 14] = [
    ("timeout", "attempt", "\"3s\""),
    ("retry", "max_attempts", "3"),
    ("bulkhead", "max_concurrent", "32"),
    ("rate_limit", "rate", "10"),
    ("hedge", "delay", "\"50ms\""),
    ("workers", "count", "1"),
    ("throttle", "max_wait", "\"5s\""),
    ("keys", "max_entries", "1000"),
    ("chaos", "error_rate", "0.1"),
    ("health", "degraded_at", "0.05"),
    ("probe", "path", "\"/health\""),
    ("recorder", "path", "\"trace.jsonl\""),
    ("gateway", "bind", "\"127.0.0.1:7070\""),
    ("admin", "bind", "\"127.0.0.1:7071\""),
];

/// The reason for which a value cannot be a section, and the allowed ones.
#[derive(Debug)]
pub(super) struct SectionAdvice {
    pub(super) reason: String,
    pub(super) allowed: String,
}

/// Returns the key that a value of this section of a dependency is most likely meant for.
pub(super) fn main_key_of(section: &str) -> Option<String> {
    let mut all = MAIN_KEYS.iter();
    let found = all.find(|(name, ..)| folded(name) == section);
    found.map(|(name, key, _)| format!("{name}.{key}"))
}

/// Returns the advice about a value in place of the section at `path`.
pub(super) fn in_place_of_section(path: &str, value: &Value) -> SectionAdvice {
    if let ValueKind::Array(tables) = &value.kind {
        return in_place_of_names(path, tables);
    }
    let known = KnownKeys::new();
    let below = known.below(path).join(", ");
    let allowed = match below.is_empty() {
        true => "a table of keys".to_owned(),
        false => format!("a table of keys: {below}"),
    };
    let name = last_of(path);
    if let Some((owner, _)) = path.split_once('.').filter(|(_, rest)| !rest.contains('.'))
        && is_owner(owner)
    {
        return SectionAdvice {
            reason: format!("{owner} have names, did you mean [{owner}.NAME] with {name} in it?"),
            allowed,
        };
    }
    let example = match name {
        "breaker" => match &value.kind {
            ValueKind::String(text) if is_span(text) => {
                Some(format!("recovery_timeout = {:?}", text.trim()))
            }
            // An order to the breaker, which stands beside its rules.
            ValueKind::String(text) if text.trim() == "off" => None,
            ValueKind::Boolean(false) => None,
            _ => Some(format!("failure_threshold = {}", shown(value, "5"))),
        },
        _ => MAIN_KEYS
            .iter()
            .find(|(section, ..)| *section == name)
            .map(|(_, key, usual)| format!("{key} = {}", shown(value, usual))),
    };
    let reason = match example {
        Some(example) => {
            format!("{name} is a section, did you mean {name} = {{ {example} }}?")
        }
        None if name == "breaker" => format!(
            "{name} is a section, did you mean override = {{ mode = \"disable\", reason = \"…\" }}?"
        ),
        None => format!("{name} is a section, and not one value"),
    };
    SectionAdvice { reason, allowed }
}

/// Returns the advice about a list in place of a section; those that are known hold named tables.
fn in_place_of_names(path: &str, tables: &[Value]) -> SectionAdvice {
    let is_named = is_owner(path);
    let table = if is_named {
        let given = tables.first().and_then(|first| match &first.kind {
            ValueKind::Table(table) => match &table.get("name")?.kind {
                ValueKind::String(name) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        });
        let name = given.filter(|name| super::is_dependency_name(name));
        let name = name.unwrap_or_else(|| "NAME".to_owned());
        format!("[{path}.{name}]")
    } else {
        format!("[{path}]")
    };
    SectionAdvice {
        reason: format!("[[{path}]] with two brackets is a list, did you mean {table}?"),
        allowed: match is_named {
            true => format!("a table for each, with its name: {table}"),
            false => format!("one table: {table}"),
        },
    }
}

/// Returns the reason why a value is no list of tables.
pub(super) fn in_place_of_list(path: &str, value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) if is_of_variable(value) && is_table_list(path) => format!(
            "a variable takes the whole list, as JSON: {PREFIX}{}=[{{\"kind\": \"stale_cache\"}}]",
            path.to_ascii_uppercase()
                .replace('-', "_")
                .replace('.', "__")
        ),
        ValueKind::Table(_) => format!(
            "one bracket makes one table, and it is a list: did you mean [[{path}]] with two brackets?"
        ),
        _ => format!("it is a list of tables, each of which begins with a line [[{path}]]"),
    }
}

/// Returns the allowed word that was most likely meant. `schema`: of the key; it has all words.
pub(super) fn meant_word(value: &Value, schema: &Json) -> Option<String> {
    /// Words of others for "off".
    const OFF: [&str; 8] = [
        "none",
        "never",
        "no",
        "false",
        "disabled",
        "infinite",
        "unlimited",
        "infinity",
    ];
    let mut words = Vec::new();
    collect(schema, &mut words);
    let meant = |text: &str| {
        let text = text.trim();
        if words.contains(&"off") && OFF.contains(&folded(text).as_str()) {
            return Some("off".to_owned());
        }
        let same = words.iter().find(|word| folded(word) == folded(text));
        let near = || nearest_word(&text.to_lowercase(), words.iter().copied());
        let meant = same.copied().or_else(near)?;
        (meant != text).then(|| meant.to_owned())
    };
    match &value.kind {
        ValueKind::String(text) => {
            let mut parts = text.split(',').filter(|part| !words.contains(&part.trim()));
            parts.find_map(meant)
        }
        ValueKind::Array(values) => values.iter().find_map(|value| match &value.kind {
            ValueKind::String(text) if !words.contains(&text.as_str()) => meant(text),
            _ => None,
        }),
        // TOML's own truth values, where the word is meant.
        ValueKind::Boolean(false) => words.contains(&"off").then(|| "off".to_owned()),
        _ => None,
    }
}

/// Returns the advice about a value in quotes: docker reads them in an `--env-file` as a part of it.
pub(super) fn quoted(value: &Value) -> Option<String> {
    let ValueKind::String(text) = &value.kind else {
        return None;
    };
    let text = text.trim();
    let is_quoted = ['"', '\'']
        .iter()
        .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
    is_quoted.then(|| "the quotes are a part of it, did you mean it without them?".to_owned())
}

/// Collects the words of a JSON Schema.
fn collect<'s>(schema: &'s Json, words: &mut Vec<&'s str>) {
    match schema {
        Json::Object(entries) => {
            for (key, value) in entries {
                match (key.as_str(), value) {
                    ("enum", Json::Array(all)) => words.extend(all.iter().filter_map(Json::as_str)),
                    ("const", Json::String(word)) => words.push(word),
                    ("anyOf" | "items", inner) => collect(inner, words),
                    _ => {}
                }
            }
        }
        Json::Array(all) => all.iter().for_each(|one| collect(one, words)),
        _ => {}
    }
}

/// Returns a given value that is a figure or a duration as a file has it, else the usual one.
fn shown(value: &Value, usual: &str) -> String {
    match &value.kind {
        ValueKind::I64(_) | ValueKind::Float(_) => value.to_string(),
        ValueKind::String(text) if usual.starts_with('"') && is_span(text) => {
            format!("{:?}", text.trim())
        }
        _ => usual.to_owned(),
    }
}

fn is_span(text: &str) -> bool {
    super::span_text::parse_duration(text.trim()).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cfg_1_a_word_of_others_for_off_is_told() {
        let schema = json!({"anyOf": [{"type": "number"}, {"const": "off"}]});
        let meant = |text: &str| meant_word(&Value::new(None, text), &schema);
        for word in ["none", "Never", "unlimited", "disabled"] {
            assert_eq!(meant(word).as_deref(), Some("off"), "{word}");
        }
        assert_eq!(meant("5 secondes"), None);
        let words = json!({"enum": ["open", "closed"]});
        assert_eq!(meant_word(&Value::new(None, "none"), &words), None);
    }

    #[test]
    fn cfg_1_a_value_in_place_of_a_section_gets_the_section_that_was_meant() {
        let said = |path: &str, value: Value| in_place_of_section(path, &value).reason;
        let text = |text: &str| Value::new(None, text);
        for (path, value, expected) in [
            (
                "dependencies.web.timeout",
                text("3s"),
                "timeout = { attempt = \"3s\" }",
            ),
            (
                "dependencies.web.timeout",
                text("hunter2"),
                "timeout = { attempt = \"3s\" }",
            ),
            (
                "dependencies.web.retry",
                Value::new(None, 4),
                "retry = { max_attempts = 4 }",
            ),
            (
                "dependencies.web.breaker",
                text("10s"),
                "breaker = { recovery_timeout = \"10s\" }",
            ),
            (
                "dependencies.web.breaker",
                Value::new(None, 3),
                "breaker = { failure_threshold = 3 }",
            ),
            (
                "dependencies.web.classify",
                text("x"),
                "classify is a section",
            ),
        ] {
            let said = said(path, value);
            assert!(said.contains(expected), "{path}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let list = Value::new(None, Vec::<Value>::new());
        assert!(said("dependencies", list).contains("did you mean [dependencies.NAME]?"));
    }

    #[test]
    fn cfg_1_a_word_that_is_nearly_allowed_is_recognized() {
        let schema =
            json!({ "anyOf": [{ "enum": ["http", "mcp_http", "model"] }, { "const": "off" }] });
        let meant = |value: Value| meant_word(&value, &schema);
        assert_eq!(meant(Value::new(None, "HTTP")).as_deref(), Some("http"));
        assert_eq!(
            meant(Value::new(None, "mcp-http")).as_deref(),
            Some("mcp_http")
        );
        assert_eq!(meant(Value::new(None, "modell")).as_deref(), Some("model"));
        assert_eq!(meant(Value::new(None, false)).as_deref(), Some("off"));
        assert_eq!(meant(Value::new(None, "grpc")), None);
    }
}
