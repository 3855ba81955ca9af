//! Reads one table: each key is asked for once, what is left over is unknown.
//!
//! serde would stop at the first error, and it does not know where a value came from. A section
//! notes every problem and goes on with the default.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};

use super::problem::{Problem, Warning};
use super::secret::Secret;
use super::shape::{Shape, show};
use super::source::{Origin, Rank};

/// What reading came to, beside the settings.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    /// Every key that was asked for, given or not.
    pub(super) asked: BTreeSet<String>,
    /// Every value that was given and used: as shown, and its origin.
    pub(super) given: BTreeMap<String, (String, Origin)>,
    /// What holds where nothing was given: as shown.
    pub(super) defaults: BTreeMap<String, String>,
    /// What can be used, but should be looked at.
    pub(super) warnings: Vec<Warning>,
}

/// What stands in the place of a value that nobody gave and that has no default.
const NOT_SET: &str = "(not set)";

/// One table of the configuration.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) report: &'a RefCell<Report>,
    values: BTreeMap<String, Value>,
    known: BTreeSet<&'static str>,
    /// Whether the table was given at all.
    pub(super) present: bool,
    /// Whether its keys hold nothing, because the whole is left out: no default of theirs counts.
    idle: bool,
}

impl<'a> Section<'a> {
    /// # Panics   Never; a value that is no table is a problem, and reads as an empty table.
    pub(super) fn new(
        path: impl Into<String>,
        value: Option<&Value>,
        report: &'a RefCell<Report>,
    ) -> Self {
        let mut section = Self {
            path: path.into(),
            report,
            values: BTreeMap::new(),
            known: BTreeSet::new(),
            present: value.is_some(),
            idle: false,
        };
        match value.map(|value| &value.kind) {
            None | Some(ValueKind::Nil) => {}
            Some(ValueKind::Table(table)) => section.values.extend(table.clone()),
            Some(_) => section.note(&section.path, value, None, "a table of keys"),
        }
        section
    }

    /// A child table whose text form is short for `{ kind = "…" }`.
    pub(super) fn tagged(&mut self, key: &'static str) -> Section<'a> {
        self.known.insert(key);
        let value = self.values.get(key).cloned();
        let text = value.filter(|value| matches!(value.kind, ValueKind::String(_)));
        if let Some(text) = text {
            let mut child = Section::new(self.path_of(key), None, self.report);
            child.values.insert("kind".to_owned(), text);
            child.present = true;
            child.idle = self.idle;
            return child;
        }
        self.section(key)
    }

    /// A child table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.known.insert(key);
        let mut child = Section::new(self.path_of(key), self.values.get(key), self.report);
        child.idle = self.idle;
        child
    }

    /// A child table that is left out unless it is given: then its keys have no defaults. `None`
    /// for the word `"off"`.
    pub(super) fn section_if_given(&mut self, key: &'static str) -> Option<Section<'a>> {
        let mut child = self.section_or_off(key)?;
        if !child.present {
            self.default(key, "\"off\"".to_owned());
            child.idle = true;
        }
        Some(child)
    }

    /// A value that is plain or a table: the plain one, and the table, which is idle beside it.
    pub(super) fn plain_or_table<T>(
        &mut self,
        key: &'static str,
        shape: &Shape<'_, T>,
    ) -> (Option<T>, Section<'a>) {
        let table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
        if self.values.get(key).is_some_and(table) {
            let path = self.path_of(key);
            self.report.borrow_mut().asked.insert(path);
            return (None, self.section(key));
        }
        let plain = self.get(key, shape);
        let mut child = Section::new(self.path_of(key), None, self.report);
        child.idle = true;
        (plain, child)
    }

    /// A child table, or the word `"off"`: then `None`.
    pub(super) fn section_or_off(&mut self, key: &'static str) -> Option<Section<'a>> {
        let off = matches!(
            self.values.get(key).map(|value| &value.kind),
            Some(ValueKind::String(text)) if text.trim() == "off"
        );
        if off {
            self.known.insert(key);
            let path = self.path_of(key);
            let origin = Origin::of(&self.values[key]);
            self.report
                .borrow_mut()
                .given
                .insert(path, ("\"off\"".to_owned(), origin));
            return None;
        }
        Some(self.section(key))
    }

    /// The child tables of an array.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        self.known.insert(key);
        let path = self.path_of(key);
        match self.values.get(key).map(|value| &value.kind) {
            None => {
                self.default(key, "[]".to_owned());
                Vec::new()
            }
            Some(ValueKind::Array(values)) => (0..)
                .zip(values)
                .map(|(index, value): (usize, _)| {
                    Section::new(format!("{path}[{index}]"), Some(value), self.report)
                })
                .collect(),
            Some(_) => {
                self.note(&path, self.values.get(key), None, "an array of tables");
                Vec::new()
            }
        }
    }

    /// The names of the tables in this one; they are data, so none of them is unknown.
    pub(super) fn names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// The child table of a name that is data.
    pub(super) fn named(&self, name: &str) -> Section<'a> {
        Section::new(self.path_of(name), self.values.get(name), self.report)
    }

    /// One value; `None` when it was not given or is not allowed, which is noted.
    pub(super) fn get<T>(&mut self, key: &'static str, shape: &Shape<'_, T>) -> Option<T> {
        self.known.insert(key);
        let path = self.path_of(key);
        self.report.borrow_mut().asked.insert(path.clone());
        let value = self.values.get(key)?;
        let shown = if shape.secret {
            "***".to_owned()
        } else {
            show(value)
        };
        if let Some(parsed) = (shape.parse)(value) {
            let given = (shown, Origin::of(value));
            self.report.borrow_mut().given.insert(path, given);
            return Some(parsed);
        }
        self.push(path, Some(shown), None, &shape.allowed, &Origin::of(value));
        None
    }

    /// A table of texts that nobody may see, whose keys are data; beside each, whether a variable
    /// gave it.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        allowed: &str,
    ) -> BTreeMap<String, (Secret, bool)> {
        self.known.insert(key);
        let path = self.path_of(key);
        self.report.borrow_mut().asked.insert(path.clone());
        let mut secrets = BTreeMap::new();
        let table = match self.values.get(key).map(|value| &value.kind) {
            None => return secrets,
            Some(ValueKind::Table(table)) => table.clone(),
            Some(_) => {
                let origin = Origin::of(&self.values[key]);
                self.push(path, Some("***".to_owned()), None, allowed, &origin);
                return secrets;
            }
        };
        for (name, value) in table {
            let origin = Origin::of(&value);
            let path = format!("{path}.{name}");
            match value.kind {
                ValueKind::String(text) => {
                    let by_variable = origin.rank >= Rank::DotEnv;
                    secrets.insert(name, (Secret::new(text), by_variable));
                    let given = ("***".to_owned(), origin);
                    self.report.borrow_mut().given.insert(path, given);
                }
                _ => self.push(path, Some("***".to_owned()), None, "a text", &origin),
            }
        }
        secrets
    }

    /// One value, or its default.
    pub(super) fn get_or<T>(&mut self, key: &'static str, shape: &Shape<'_, T>, default: T) -> T {
        let given = self.get(key, shape);
        self.settle(key, shape, given, default)
    }

    /// The value that was got, or what holds because others were given.
    pub(super) fn settle<T>(
        &self,
        key: &str,
        shape: &Shape<'_, T>,
        given: Option<T>,
        default: T,
    ) -> T {
        given.unwrap_or_else(|| {
            self.default(key, (shape.show)(&default));
            default
        })
    }

    /// One value that has no default.
    pub(super) fn get_if_set<T>(&mut self, key: &'static str, shape: &Shape<'_, T>) -> Option<T> {
        let given = self.get(key, shape);
        if given.is_none() {
            self.default(key, NOT_SET.to_owned());
        }
        given
    }

    /// Notes what holds where nothing was given.
    fn default(&self, key: &str, shown: String) {
        if !self.idle {
            let path = self.path_of(key);
            self.report.borrow_mut().defaults.insert(path, shown);
        }
    }

    /// Notes that a value can be used, but should be looked at.
    pub(super) fn warn(&self, key: &str, text: String) {
        let path = self.path_of(key);
        let mut report = self.report.borrow_mut();
        let origin = report.given.get(&path).map(|(_, origin)| origin.clone());
        let origin = origin.unwrap_or_else(Origin::built_in).place;
        report.warnings.push(Warning {
            key: path,
            text,
            origin,
        });
    }

    /// Whether the key was given, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether the key was given and could not be used: relations with it are not judged.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.has(key) && !self.report.borrow().given.contains_key(&self.path_of(key))
    }

    /// Notes that a value cannot stand beside another, or is missing.
    pub(super) fn conflict(&self, key: &str, reason: impl Into<String>, allowed: &str) {
        let path = self.path_of(key);
        let given = self.report.borrow().given.get(&path).cloned();
        let (shown, origin) = match given {
            Some((shown, origin)) => (Some(shown), origin),
            None => (None, self.origin()),
        };
        self.push(path, shown, Some(reason.into()), allowed, &origin);
    }

    /// Notes that the section itself should not be there.
    pub(super) fn conflict_here(&self, reason: &str, allowed: &str) {
        let path = self.path.clone();
        self.push(path, None, Some(reason.to_owned()), allowed, &self.origin());
    }

    /// Where the section begins: the first of its values, in the weakest layer.
    pub(super) fn origin(&self) -> Origin {
        let table = self.values.clone().into_iter().collect();
        Origin::of(&Value::new(None, ValueKind::Table(table)))
    }

    /// Notes keys that do not belong to the chosen kind. One from a weaker layer than the
    /// choice itself is a leftover, and ignored.
    pub(super) fn only(&self, chooser: &str, allowed: &[&str]) {
        let Some(chosen) = self.values.get(chooser) else {
            return;
        };
        self.only_in(chooser, &show(chosen), Origin::of(chosen).rank, allowed);
    }

    /// The same where the kind has a default, so that nobody need have chosen.
    pub(super) fn only_or(&self, chooser: &str, default: &str, allowed: &[&str]) {
        if self.has(chooser) {
            self.only(chooser, allowed);
        } else {
            self.only_in(chooser, default, Rank::BuiltIn, allowed);
        }
    }

    fn only_in(&self, chooser: &str, chosen: &str, rank: Rank, allowed: &[&str]) {
        for (key, value) in &self.values {
            let alien = key != chooser
                && self.known.contains(key.as_str())
                && !allowed.contains(&key.as_str());
            if alien && Origin::of(value).rank >= rank {
                let reason = format!("it means nothing with {chooser} = {chosen}");
                self.note(
                    &self.path_of(key),
                    Some(value),
                    Some(reason),
                    "to leave it out",
                );
            }
        }
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, value) in &self.values {
            if self.known.contains(key.as_str()) {
                continue;
            }
            let near = nearest(key, self.known.iter().copied());
            let reason = match near {
                Some(near) => format!("unknown key, did you mean {near}?"),
                None => "unknown key".to_owned(),
            };
            let known: Vec<&str> = self.known.iter().copied().collect();
            let given = may_be_secret(&self.path, key).then(|| "***".to_owned());
            self.push(
                self.path_of(key),
                Some(given.unwrap_or_else(|| show(value))),
                Some(reason),
                &known.join(", "),
                &Origin::of(value),
            );
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn note(&self, path: &str, value: Option<&Value>, reason: Option<String>, allowed: &str) {
        let origin = value.map_or_else(Origin::built_in, Origin::of);
        let secret = may_be_secret("", path);
        let shown = value.map(|value| {
            if secret {
                "***".to_owned()
            } else {
                show(value)
            }
        });
        self.push(path.to_owned(), shown, reason, allowed, &origin);
    }

    fn push(
        &self,
        key: String,
        given: Option<String>,
        reason: Option<String>,
        allowed: &str,
        origin: &Origin,
    ) {
        self.report.borrow_mut().problems.push(Problem {
            key,
            given,
            reason,
            allowed: allowed.to_owned(),
            origin: origin.place.clone(),
        });
    }
}

/// Whether a value under a key that we do not know might be a secret all the same.
fn may_be_secret(path: &str, key: &str) -> bool {
    let sensitive = ["token", "secret", "passw", "key", "auth", "credential"];
    ["admin", "otel"]
        .iter()
        .any(|word| path == *word || key == *word)
        || sensitive.iter().any(|word| key.contains(word))
}

/// The word that was probably meant.
pub(super) fn nearest<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = 1 + given.len() / 4;
    let near = words.map(|word| (distance(given, word), word)).min()?;
    (near.0 <= limit).then_some(near.1)
}

/// How many letters must be changed, added or taken away.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..other.len() {
            let change = diagonal + usize::from(other[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
