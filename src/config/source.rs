//! Origins of values: files with line numbers, variables and flags with names.
//!
//! The `config` crate reads and merges. It keeps one string per value as its origin. That string
//! encodes the rank of the layer, and the file with the line or the name of the variable.

use std::error::Error;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::toml_mistake;

/// The layers, from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LayerRank {
    BuiltIn,
    /// Standard variables, which may be set for other programs.
    Standard,
    DefaultFile,
    EnvironmentFile,
    Text,
    DotEnv,
    Environment,
    Flag,
}

const RANKS: [LayerRank; 8] = [
    LayerRank::BuiltIn,
    LayerRank::Standard,
    LayerRank::DefaultFile,
    LayerRank::EnvironmentFile,
    LayerRank::Text,
    LayerRank::DotEnv,
    LayerRank::Environment,
    LayerRank::Flag,
];

/// The layer of a value, and its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueOrigin {
    pub(super) rank: LayerRank,
    pub(super) place: String,
}

impl ValueOrigin {
    pub(super) fn new(rank: LayerRank, place: impl Into<String>) -> Self {
        let place = place.into();
        Self { rank, place }
    }

    pub(super) fn built_in() -> Self {
        Self::new(LayerRank::BuiltIn, "built-in")
    }

    /// Decodes the result of [`ValueOrigin::encode`]. A table has no origin of its own.
    pub(super) fn of(value: &Value) -> Self {
        if let ValueKind::Table(table) = &value.kind {
            return table
                .values()
                .map(Self::of)
                .min_by(by_place)
                .unwrap_or_else(Self::built_in);
        }
        if let ValueKind::Array(values) = &value.kind
            && value.origin().is_none()
        {
            return values.first().map_or_else(Self::built_in, Self::of);
        }
        let split = value.origin().and_then(|text| text.split_once('|'));
        split.map_or_else(Self::built_in, |(rank, place)| {
            let rank = rank
                .parse()
                .ok()
                .and_then(|index: usize| RANKS.get(index).copied());
            Self::new(rank.unwrap_or(LayerRank::BuiltIn), place)
        })
    }

    pub(super) fn encode(&self) -> String {
        format!("{}|{}", self.rank as usize, self.place)
    }
}

/// Orders by layer, then by file, then by line.
fn by_place(one: &ValueOrigin, other: &ValueOrigin) -> std::cmp::Ordering {
    let key = |origin: &ValueOrigin| {
        let (file, line) = origin.place.rsplit_once(':').unwrap_or((&origin.place, ""));
        (
            origin.rank,
            file.to_owned(),
            line.parse::<u32>().unwrap_or(0),
        )
    };
    key(one).cmp(&key(other))
}

/// Reads TOML, with a line number for each value. `name`: of the file.
///
/// # Errors  The first mistake, with its line.
pub(super) fn read_toml(
    rank: LayerRank,
    name: &str,
    text: &str,
) -> Result<Map<String, Value>, Box<Problem>> {
    let file = File { rank, name, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return file.table(table.into_inner());
    }
    Err(Box::new(toml_mistake::problem(name, text, &errors)))
}

struct File<'a> {
    rank: LayerRank,
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// The problem of a number that has no value here.
    fn unreadable(&self, line: usize, error: &dyn Error) -> Box<Problem> {
        let allowed = "a whole number of at most 64 bits, or a fraction";
        let problem = Problem::of_layer(error, allowed, &format!("{}:{line}", self.name));
        Box::new(problem)
    }

    fn table(&self, table: DeTable<'_>) -> Result<Map<String, Value>, Box<Problem>> {
        let entries = table.into_iter().map(|(key, value)| {
            let line = self.line(key.span().start);
            Ok((
                key.into_inner().into_owned(),
                self.value(line, value.into_inner())?,
            ))
        });
        entries.collect()
    }

    fn value(&self, line: usize, value: DeValue<'_>) -> Result<Value, Box<Problem>> {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                ValueKind::I64(parsed.map_err(|error| self.unreadable(line, &error))?)
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().parse();
                ValueKind::Float(parsed.map_err(|error| self.unreadable(line, &error))?)
            }
            DeValue::Boolean(truth) => ValueKind::Boolean(truth),
            DeValue::Datetime(date) => ValueKind::String(date.to_string()),
            DeValue::Table(table) => ValueKind::Table(self.table(table)?),
            DeValue::Array(values) => {
                let values = values.into_iter().map(|value| {
                    let line = self.line(value.span().start);
                    self.value(line, value.into_inner())
                });
                ValueKind::Array(values.collect::<Result<_, _>>()?)
            }
        };
        let place = ValueOrigin::new(self.rank, format!("{}:{line}", self.name));
        Ok(Value::new(Some(&place.encode()), kind))
    }
}

/// A layer of one key and one string: a variable, or a flag.
#[derive(Debug, Clone)]
pub(super) struct SingleValue {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) origin: ValueOrigin,
}

impl Source for SingleValue {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let text = ValueKind::String(self.text.clone());
        let value = Value::new(Some(&self.origin.encode()), text);
        Ok(Map::from_iter([(self.key.clone(), value)]))
    }
}

/// A layer that is already collected.
#[derive(Debug, Clone)]
pub(super) struct CollectedValues(pub(super) Map<String, Value>);

impl Source for CollectedValues {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
