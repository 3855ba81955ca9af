//! The key `token_limit` of a model: limits of tokens, one or several.

use std::num::NonZeroU64;
use std::time::Duration;

use config::ValueKind;
use serde_json::json;

use super::kind::DependencyKind;
use super::section::Section;
use super::value_type::{TICK, ValueType, YEAR, duration, integer, one_of};

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
    /// Tokens of an answer that are reserved where the request asks for no maximum.
    pub output_estimate: u64,
    /// Maximum wait of an attempt.
    pub max_wait: Duration,
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

const ALLOWED: &str = "a table such as { rate = 450000, per = \"1m\", of = \"total\", output_estimate = \
                       1000, max_wait = \"20s\", burst = 450000 }, a list of such tables, or \"off\"";

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
    let parse = |value: &config::Value| match &value.kind {
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
        } });
    let schema = json!({ "anyOf": [
        table.clone(), { "type": "array", "items": table }, { "const": "off" },
    ] });
    ValueType::new(ALLOWED, parse, show).schema(schema)
}

fn limit(value: &config::Value) -> Option<TokenLimitConfig> {
    const KEYS: [&str; 6] = ["rate", "per", "burst", "of", "output_estimate", "max_wait"];
    let ValueKind::Table(table) = &value.kind else {
        return None;
    };
    if table.keys().any(|key| !KEYS.contains(&key.as_str())) {
        return None;
    }
    let or = |key: &str, default: i64, least: i64| match table.get(key) {
        Some(value) => (integer(least..=MOST).parse)(value),
        None => Some(default),
    };
    let span = |key: &str, default: Duration, least: Duration| match table.get(key) {
        Some(value) => (duration(least..=YEAR).parse)(value),
        None => Some(default),
    };
    let tokens = |count: i64| u64::try_from(count).ok();
    let rate = (integer(1..=MOST).parse)(table.get("rate")?)?;
    Some(TokenLimitConfig {
        rate: NonZeroU64::new(tokens(rate)?)?,
        per: span("per", Duration::from_secs(60), TICK)?,
        burst: NonZeroU64::new(tokens(or("burst", rate, 1)?)?)?,
        of: match table.get("of") {
            Some(value) => (one_of(OF).parse)(value)?,
            None => TokensOf::Total,
        },
        output_estimate: tokens(or("output_estimate", 1_000, 0)?)?,
        max_wait: span("max_wait", Duration::ZERO, Duration::ZERO)?,
    })
}
