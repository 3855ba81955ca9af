//! The key `token_limit` of a model: limits of tokens, one or several.

use std::num::NonZeroU64;
use std::time::Duration;

use breakerbox_actors::printable;
use config::{Map, Value, ValueKind};
use serde_json::json;

use super::kind::DependencyKind;
use super::masking::{self, MASK};
use super::section::Section;
use super::value_type::{TICK, ValueType, YEAR, boolean, duration, integer, one_of};

/// Limit of a model's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenLimitConfig {
    /// Tokens in each `per`.
    pub rate: NonZeroU64,
    /// The interval.
    pub per: Duration,
    /// Tokens that may be used at once after an idle time, and the largest single reservation.
    pub burst: NonZeroU64,
    /// The tokens that count.
    pub of: TokensOf,
    /// Tokens of an answer that are reserved where the request asks for no maximum; below `burst`.
    pub output_estimate: u64,
    /// Maximum wait of an attempt.
    pub max_wait: Duration,
    /// True for one limit of all replicas of a fleet; false for one of each.
    pub shared: bool,
}

/// The tokens that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokensOf {
    /// Input and output together.
    Total,
    /// The tokens of prompts.
    Input,
    /// The tokens of answers.
    Output,
}

impl TokensOf {
    /// The word in the configuration and in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

const OF: &[(&str, TokensOf)] = &[
    ("total", TokensOf::Total),
    ("input", TokensOf::Input),
    ("output", TokensOf::Output),
];

const KEYS: [&str; 7] = [
    "rate",
    "per",
    "burst",
    "of",
    "output_estimate",
    "max_wait",
    "shared",
];

/// Tokens of an answer that are reserved by default.
const ESTIMATE: i64 = 1_000;

const ALLOWED: &str = "a table such as { rate = 450000, per = \"1m\", of = \"total\", output_estimate = \
                       1000, max_wait = \"20s\", burst = 450000, shared = true }, a list of such tables, or \"off\"";

/// Shortest time of a token of a shared limit: the board counts whole nanoseconds.
const SHORTEST_SHARED: Duration = Duration::from_nanos(100);

/// Maximum number of tokens in a setting.
const MOST: i64 = 1_000_000_000_000;

/// Reads the key. A dependency of another kind must not have it.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
) -> Vec<TokenLimitConfig> {
    const KEY: &str = "token_limit";
    let limits = section.get(KEY, &limits());
    if kind == Some(DependencyKind::Model) {
        return section.default_to(KEY, &self::limits(), limits, Vec::new());
    }
    if section.has(KEY) {
        section.conflict(KEY, "it applies to kind = \"model\"", "to leave it out");
    }
    Vec::new()
}

fn limits() -> ValueType<'static, Vec<TokenLimitConfig>> {
    let parse = |value: &Value| match &value.kind {
        ValueKind::String(text) if text.trim() == "off" => Some(Vec::new()),
        ValueKind::Array(tables) => tables.iter().map(limit).collect(),
        ValueKind::Table(_) => Some(vec![limit(value)?]),
        _ => None,
    };
    let show = |limits: &Vec<TokenLimitConfig>| match limits.len() {
        0 => "\"off\"".to_owned(),
        count => format!("{count} limits"),
    };
    let table = json!({ "type": "object", "required": ["rate"], "additionalProperties": false,
        "properties": {
            "rate": { "type": "integer", "minimum": 1 },
            "per": {}, "max_wait": {},
            "burst": { "type": "integer", "minimum": 1 },
            "of": { "enum": ["total", "input", "output"] },
            "output_estimate": { "type": "integer", "minimum": 0 },
            "shared": { "type": "boolean" },
        } });
    let schema = json!({ "anyOf": [
        table.clone(), { "type": "array", "items": table }, { "const": "off" },
    ] });
    let mut limits = ValueType::new(ALLOWED, parse, show).schema(schema);
    limits.given = show_given;
    limits.mistake = mistake;
    limits
}

fn limit(value: &Value) -> Option<TokenLimitConfig> {
    read_limit(value).ok()
}

/// Reads one limit.
///
/// # Errors  The key that cannot be used, and why.
fn read_limit(value: &Value) -> Result<TokenLimitConfig, String> {
    let ValueKind::Table(table) = &value.kind else {
        return Err(format!("{} is no table", show_given(value)));
    };
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let known = KEYS.join(", ");
        return Err(format!("unknown key {}, known: {known}", printable(key)));
    }
    if !table.contains_key("rate") {
        return Err("rate is missing".to_owned());
    }
    let rate = number(table, "rate", 1, 1)?;
    let burst = number(table, "burst", rate, 1)?;
    let of = match table.get("of") {
        Some(value) => parsed("of", value, &one_of(OF))?,
        None => TokensOf::Total,
    };
    let output_estimate = number(table, "output_estimate", ESTIMATE.min(burst / 2), 0)?;
    if of != TokensOf::Input && output_estimate >= burst && output_estimate > 0 {
        return Err(format!(
            "output_estimate = {output_estimate} is not below burst = {burst}: no request without a \
             maximum of its own could ever begin"
        ));
    }
    let shared = match table.get("shared") {
        Some(value) => parsed("shared", value, &boolean())?,
        None => false,
    };
    let per = span(table, "per", Duration::from_secs(60), TICK)?;
    if shared && per.as_nanos() < SHORTEST_SHARED.as_nanos() * u128::from(rate.unsigned_abs()) {
        return Err(format!(
            "rate = {rate} is more than 10,000,000 tokens a second: leave out shared = true"
        ));
    }
    let tokens = |count: i64| u64::try_from(count).unwrap_or_default();
    let at_least_one = |count: i64| NonZeroU64::new(tokens(count)).unwrap_or(NonZeroU64::MIN);
    Ok(TokenLimitConfig {
        rate: at_least_one(rate),
        per,
        burst: at_least_one(burst),
        of,
        output_estimate: tokens(output_estimate),
        max_wait: span(table, "max_wait", Duration::ZERO, Duration::ZERO)?,
        shared,
    })
}

fn number(table: &Map<String, Value>, key: &str, default: i64, least: i64) -> Result<i64, String> {
    match table.get(key) {
        Some(value) => parsed(key, value, &integer(least..=MOST)),
        None => Ok(default),
    }
}

fn span(
    table: &Map<String, Value>,
    key: &str,
    default: Duration,
    least: Duration,
) -> Result<Duration, String> {
    match table.get(key) {
        Some(value) => parsed(key, value, &duration(least..=YEAR)),
        None => Ok(default),
    }
}

fn parsed<T>(key: &str, value: &Value, shape: &ValueType<'_, T>) -> Result<T, String> {
    let allowed = &shape.allowed;
    let given = (shape.given)(value);
    (shape.parse)(value).ok_or_else(|| format!("{key}: given {given}, allowed: {allowed}"))
}

/// Says what is wrong with the first limit that cannot be used.
fn mistake(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Array(tables) => tables.iter().enumerate().find_map(|(index, table)| {
            let wrong = read_limit(table).err()?;
            Some(format!("[{index}] {wrong}"))
        }),
        ValueKind::Table(_) => read_limit(value).err(),
        _ => None,
    }
}

/// Formats given limits. Only the values of unknown keys may be secrets.
fn show_given(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(tables) => {
            let tables: Vec<String> = tables.iter().map(show_given).collect();
            format!("[{}]", tables.join(", "))
        }
        ValueKind::Table(table) => {
            let known = KEYS.iter().filter_map(|key| {
                let value = table.get(*key)?;
                Some(format!("{key} = {}", masking::show(value)))
            });
            let unknown = table.keys().filter(|key| !KEYS.contains(&key.as_str()));
            let unknown = unknown.map(|key| format!("{} = {MASK}", printable(key)));
            let entries: Vec<String> = known.chain(unknown).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        _ => masking::show(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Value {
        let text = format!("limit = {text}");
        let file = config::File::from_str(&text, config::FileFormat::Toml);
        let built = config::Config::builder().add_source(file).build();
        built.unwrap().get::<Value>("limit").unwrap()
    }

    #[test]
    fn llm_token_limits_name_the_key_that_is_wrong() {
        let cases = [
            ("{ rate = 0 }", "rate: given 0, allowed: "),
            ("{ per = \"1m\" }", "rate is missing"),
            (
                "{ rate = 9, bursts = 8 }",
                "unknown key bursts, known: rate, per",
            ),
            ("{ rate = 9, per = \"1x\" }", "per: given \"1x\", allowed: "),
            (
                "{ rate = 9, of = \"words\" }",
                "of: given \"words\", allowed: ",
            ),
            (
                "{ rate = 9, output_estimate = 9 }",
                "output_estimate = 9 is not below burst = 9",
            ),
            ("[{ rate = 9 }, { rate = -1 }]", "[1] rate: given -1"),
            ("{ rate = 9, shared = 7 }", "shared: given 7, allowed: "),
            (
                "{ rate = 10000001, per = \"1s\", shared = true }",
                "rate = 10000001 is more than 10,000,000 tokens a second",
            ),
        ];
        for (text, told) in cases {
            let value = read_text(text);
            let wrong = mistake(&value).unwrap();
            assert!(wrong.starts_with(told), "{text}: {wrong}");
            assert!((limits().parse)(&value).is_none(), "{text}");
        }
        let masked = read_text("{ rate = 9, key = \"hunter2\" }");
        assert_eq!(show_given(&masked), "{ rate = 9, key = *** }");
    }

    #[test]
    fn flt_13_a_token_limit_may_be_one_of_all_replicas() {
        let read = |text: &str| read_limit(&read_text(text)).unwrap().shared;
        assert!(!read("{ rate = 9 }"));
        assert!(!read("{ rate = 100000000, per = \"1s\" }"));
        assert!(read("{ rate = 10000000, per = \"1s\", shared = true }"));
    }

    #[test]
    fn flt_13_a_shared_token_limit_needs_a_fleet() {
        let load = |fleet: &str| {
            let text = format!(
                "{fleet}\n[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\n\
                 url = \"http://127.0.0.1:1/v1\"\ntoken_limit = [{{ rate = 9 }}, {{ rate = 99, shared = true }}]"
            );
            crate::config::Settings::loader().bare().toml(&text).load()
        };
        let problem = load("").unwrap_err().to_string();
        assert!(
            problem.contains("dependencies.gpt.token_limit"),
            "{problem}"
        );
        assert!(problem.contains("there is no section fleet"), "{problem}");
        assert!(load("[fleet]\nservers = [\"nats://127.0.0.1:1\"]").is_ok());
    }

    #[test]
    fn llm_a_small_token_limit_reserves_half_of_its_burst_for_an_answer() {
        let read = |text: &str| read_limit(&read_text(text)).unwrap().output_estimate;
        assert_eq!(read("{ rate = 100000 }"), 1_000);
        assert_eq!(read("{ rate = 500 }"), 250);
        assert_eq!(read("{ rate = 1 }"), 0);
        assert_eq!(read("{ rate = 5, of = \"input\", output_estimate = 5 }"), 5);
    }
}
