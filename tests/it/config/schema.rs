//! The JSON Schema of the configuration, with a real validator.

use breakerbox::config::{Settings, schema};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::folder;

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).expect("it is JSON");
    jsonschema::meta::validate(&schema).expect("it is a schema");
    jsonschema::validator_for(&schema).expect("it is a schema that can be used")
}

/// Converts a file as an editor's validator sees it.
fn json_of(text: &str) -> Value {
    let table = DeTable::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    table_of(table.into_inner())
}

fn table_of(table: DeTable<'_>) -> Value {
    let entries = table.into_iter();
    let entries =
        entries.map(|(key, value)| (key.into_inner().into_owned(), value_of(value.into_inner())));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn value_of(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => {
            json!(i64::from_str_radix(number.as_str(), number.radix()).expect("a number"))
        }
        DeValue::Float(number) => json!(number.as_str().parse::<f64>().expect("a number")),
        DeValue::Boolean(truth) => json!(truth),
        DeValue::Datetime(date) => json!(date.to_string()),
        DeValue::Array(values) => values
            .into_iter()
            .map(|value| value_of(value.into_inner()))
            .collect(),
        DeValue::Table(table) => table_of(table),
    }
}

#[track_caller]
fn assert_valid(validator: &Validator, text: &str, name: &str) {
    let errors: Vec<String> = validator
        .iter_errors(&json_of(text))
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
}

#[test]
fn cfg_1_the_schema_accepts_every_file_that_ships() {
    let validator = validator();
    let files = std::fs::read_dir(folder()).expect("a folder");
    let files = files.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
    let mut count = 0;
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a text");
        assert_valid(&validator, &text, &path.display().to_string());
        count += 1;
    }
    assert!(count >= 5, "{count} files");
    let everything = format!("[dependencies.web]\n{}", super::EVERYTHING);
    assert_valid(&validator, &everything, "everything");
}

/// What the reader takes, the schema takes, and the other way round.
#[test]
fn cfg_1_the_schema_and_the_reader_agree() {
    let validator = validator();
    let of_web = [
        ("breaker.failure_threshold = 3", true),
        ("breaker.failure_threshold = \"off\"", true),
        ("breaker.failure_threshold = 0", false),
        ("breaker.failure_threshold = \"many\"", false),
        ("breaker.failure_treshold = 3", false),
        ("breaker.failure_rate = 1.5", false),
        ("breaker.recovery_timeout = \"10s\"", true),
        ("breaker.recovery_timeout = 10", true),
        ("breaker.recovery_timeout = \"soon\"", false),
        ("breaker.window = \"consecutive\"", true),
        ("breaker.window = \"counting\"", false),
        ("breaker.window = { kind = \"count\", size = 30 }", true),
        ("breaker.window = { kind = \"count\", sizes = 30 }", false),
        ("breaker = 3", false),
        ("recovery_timeout = \"30s\"", false),
        ("retry.backoff.jitter = 0.5", true),
        ("retry.backoff.jitter = \"full\"", true),
        ("retry.backoff.jitter = \"much\"", false),
        ("retry.on = [\"timeout\", 503]", true),
        ("retry.on = [\"timeout\", 200]", false),
        ("retry.budget = \"off\"", true),
        ("hedge = \"off\"", true),
        ("chaos = true", false),
        (
            "kind = \"http\"\nurl = \"http://a\"\nheaders = { x-a = \"1\" }",
            true,
        ),
        (
            "kind = \"http\"\nurl = \"http://a\"\nheaders = { x-a = 1 }",
            false,
        ),
        ("kind = \"htp\"", false),
        ("idempotent = [\"GET\"]", true),
        (
            "fallback = [{ kind = \"stale_cache\", max_age = \"1h\" }]",
            true,
        ),
        (
            "fallback = [{ kind = \"stale_cache\", maxage = \"1h\" }]",
            false,
        ),
        ("fallback = { kind = \"stale_cache\" }", false),
        ("fallback_only = \"maybe\"", false),
        (
            "throttle.quota_reset = { at = \"00:00\", zone = \"UTC\" }",
            true,
        ),
        ("throttle.quota_reset = \"1h\"", true),
    ];
    for (line, is_good) in of_web {
        let text = format!("[dependencies.web]\n{line}\n");
        assert_eq!(validator.is_valid(&json_of(&text)), is_good, "{line}");
        let read = super::of_text(&text).load();
        assert_eq!(read.is_ok(), is_good, "{line}: {read:?}");
    }
    let of_process = [
        ("[gateway]\naccess_log = \"stdout\"", true),
        ("[gateway]\nbind = 7070", false),
        ("[gateway]\nmax_body = \"10MB\"", true),
        ("[gateway]\nmax_body = \"large\"", false),
        ("[gateway]\nper_caller = \"off\"", true),
        ("[reload]\nwatch = false", true),
        ("[relod]\nwatch = false", false),
    ];
    for (text, is_good) in of_process {
        assert_eq!(validator.is_valid(&json_of(text)), is_good, "{text}");
        assert_eq!(super::of_text(text).load().is_ok(), is_good, "{text}");
    }
}

#[test]
fn cfg_1_the_schema_names_every_key_with_its_default() {
    let text = schema();
    for key in Settings::keys() {
        let name = key
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .replace("[0]", "");
        assert!(text.contains(&format!("\"{name}\": ")), "{key}");
    }
    let schema: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let gateway = &schema["properties"]["gateway"]["properties"];
    assert_eq!(gateway["idle_timeout"]["default"], "1m 15s");
    let words = gateway["threads"]["description"]
        .as_str()
        .unwrap_or_default();
    assert!(
        words.contains("from 1 to 1024") && words.contains("Default: \"auto\""),
        "{words}"
    );
}

#[test]
fn cfg_1_the_schema_beside_the_files_is_the_present_one() {
    let path = folder().join("breakerbox.schema.json");
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    let advice = "write it anew: cargo run -- schema > config/breakerbox.schema.json";
    assert!(shipped == schema(), "{advice}");
    let default = std::fs::read_to_string(folder().join("default.toml")).expect("a text");
    assert!(default.starts_with("#:schema ./breakerbox.schema.json\n"));
}
