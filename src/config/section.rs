//! Reader of one table: each known key is read once, the remaining keys are unknown.
//!
//! serde would stop at the first error, and it does not know the origin of a value. A section
//! reports every problem and continues with the default.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};
use serde_json::json;

use super::masking::{MASK, is_sensitive, show, show_unknown, without_keys};
use super::misplaced_value;
use super::odd_secret;
use super::problem::{Problem, Warning};
use super::secret::Secret;
use super::source::{LayerRank, ValueOrigin};
use super::unknown_key;
use super::value_type::{ValueType, long_span};
use super::variable_names;

/// Result of reading, beside the settings.
#[derive(Debug, Default)]
pub(super) struct LoadReport {
    pub(super) problems: Vec<Problem>,
    /// All known keys, given or not.
    pub(super) asked: BTreeMap<String, KeyDescription>,
    /// True to describe the keys too.
    pub(super) describes: bool,
    /// Sections that a word may stand for.
    pub(super) words: BTreeMap<String, &'static str>,
    /// Sections that their kind alone may stand for.
    pub(super) shorts: BTreeSet<String>,
    /// All given and valid values, with their displayed form and origin.
    pub(super) given: BTreeMap<String, (String, ValueOrigin)>,
    /// Those of them that are not shown whole, to tell them from others.
    pub(super) hidden: BTreeMap<String, Secret>,
    /// Defaults of the other keys, in their displayed form.
    pub(super) defaults: BTreeMap<String, String>,
    /// Warnings about usable but suspicious values.
    pub(super) warnings: Vec<Warning>,
}

/// The allowed values of a key.
#[derive(Debug, Default)]
pub(super) struct KeyDescription {
    pub(super) allowed: String,
    /// As a JSON Schema.
    pub(super) schema: serde_json::Value,
}

/// Number of keys above which a message names only the one that was probably meant.
const MANY: usize = 20;
/// Displayed form of a missing value without a default.
const NOT_SET: &str = "(not set)";

/// One table of the configuration.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) report: &'a RefCell<LoadReport>,
    values: BTreeMap<String, Value>,
    known: BTreeSet<&'static str>,
    /// True if the table was given.
    pub(super) present: bool,
    /// True if the table is left out as a whole: the defaults of its keys do not apply.
    idle: bool,
}

impl<'a> Section<'a> {
    /// Opens a table.
    ///
    /// # Panics   Never; a value that is not a table is a problem, and reads as an empty table.
    pub(super) fn new(
        path: impl Into<String>,
        value: Option<&Value>,
        report: &'a RefCell<LoadReport>,
    ) -> Self {
        let mut section = Self {
            path: path.into(),
            report,
            values: BTreeMap::new(),
            known: BTreeSet::new(),
            // A value that is no table is one problem: nothing else is missing in it.
            present: value.is_some_and(|value| matches!(value.kind, ValueKind::Table(_))),
            idle: false,
        };
        match value.map(|value| &value.kind) {
            None | Some(ValueKind::Nil) => {}
            Some(ValueKind::Table(table)) => section.values.extend(table.clone()),
            Some(_) => {
                if let Some(value) = value {
                    let advice = misplaced_value::in_place_of_section(&section.path, value);
                    section.misplaced(value, advice.reason, &advice.allowed);
                }
            }
        }
        section
    }

    /// Returns a child table; a string is short for `{ kind = "…" }`.
    pub(super) fn kind_table(&mut self, key: &'static str) -> Section<'a> {
        self.known.insert(key);
        let path = self.path_of(key);
        self.report.borrow_mut().shorts.insert(path);
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

    /// Returns a child table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.known.insert(key);
        let mut child = Section::new(self.path_of(key), self.values.get(key), self.report);
        child.idle = self.idle;
        child
    }

    /// Returns an optional child table; if it is not given, its keys have no defaults. Returns
    /// `None` for the word `"off"`.
    pub(super) fn section_if_given(&mut self, key: &'static str) -> Option<Section<'a>> {
        let mut child = self.section_or_off(key)?;
        if !child.present {
            self.default(key, "\"off\"".to_owned());
            child.idle = true;
        }
        Some(child)
    }

    /// Returns a value that is either plain or a table: the plain value, and the table, which is
    /// idle unless it is given.
    pub(super) fn plain_or_table<T>(
        &mut self,
        key: &'static str,
        shape: &ValueType<'_, T>,
    ) -> (Option<T>, Section<'a>) {
        let table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
        if self.values.get(key).is_some_and(table) {
            self.ask(key, shape);
            return (None, self.section(key));
        }
        let plain = self.get(key, shape);
        let mut child = Section::new(self.path_of(key), None, self.report);
        child.idle = true;
        (plain, child)
    }

    /// Returns a child table, or `None` for the word `"off"`.
    pub(super) fn section_or_off(&mut self, key: &'static str) -> Option<Section<'a>> {
        let path = self.path_of(key);
        self.report.borrow_mut().words.insert(path, "off");
        let off = matches!(
            self.values.get(key).map(|value| &value.kind),
            Some(ValueKind::String(text)) if text.trim() == "off"
        );
        if off {
            self.known.insert(key);
            let path = self.path_of(key);
            let origin = ValueOrigin::of(&self.values[key]);
            self.report
                .borrow_mut()
                .given
                .insert(path, ("\"off\"".to_owned(), origin));
            return None;
        }
        Some(self.section(key))
    }

    /// Returns the child tables of an array.
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
                let value = &self.values[key];
                let reason = misplaced_value::in_place_of_list(&path, value);
                let shown = Some(MASK.to_owned());
                let origin = ValueOrigin::of(value);
                self.push(path, shown, Some(reason), "an array of tables", &origin);
                Vec::new()
            }
        }
    }

    /// Returns the names of the tables in this one; they are data, so none of them is unknown.
    pub(super) fn names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// Returns the child table with a name that is data.
    pub(super) fn named(&self, name: &str) -> Section<'a> {
        Section::new(self.path_of(name), self.values.get(name), self.report)
    }

    /// Reads one value. Returns `None` if it is not given, or if it is invalid, which is reported.
    pub(super) fn get<T>(&mut self, key: &'static str, shape: &ValueType<'_, T>) -> Option<T> {
        self.known.insert(key);
        let path = self.path_of(key);
        self.ask(key, shape);
        let value = self.values.get(key)?;
        let shown = (shape.given)(value);
        if let Some(parsed) = (shape.parse)(value) {
            self.note_given(path, shown, value);
            if shape.is_secret {
                self.warn_if_odd(key, value);
            }
            return Some(parsed);
        }
        let meant = misplaced_value::meant_word(value, &shape.schema);
        let reason = meant.map(|word| format!("did you mean {word:?}?"));
        let reason = reason.or_else(|| (shape.mistake)(value));
        let reason = reason.or_else(|| misplaced_value::quoted(value));
        self.push(
            path,
            Some(shown),
            reason,
            &shape.allowed,
            &ValueOrigin::of(value),
        );
        None
    }

    /// Notes a valid value, and apart from it the whole of one that is shown in part only.
    fn note_given(&self, path: String, shown: String, value: &Value) {
        let mut report = self.report.borrow_mut();
        if shown.contains(MASK) {
            let hidden = Secret::new(value.to_string());
            report.hidden.insert(path.clone(), hidden);
        }
        let given = (shown, ValueOrigin::of(value));
        report.given.insert(path, given);
    }

    /// Notes that a key is known, with its allowed values.
    fn ask<T>(&self, key: &str, shape: &ValueType<'_, T>) {
        let path = self.path_of(key);
        let mut report = self.report.borrow_mut();
        let described = match report.describes {
            true => KeyDescription {
                allowed: shape.allowed.clone(),
                schema: shape.schema.clone(),
            },
            false => KeyDescription::default(),
        };
        report.asked.insert(path, described);
    }

    /// Reads a table of secret strings with arbitrary keys.
    pub(super) fn secrets(&mut self, key: &'static str, allowed: &str) -> BTreeMap<String, Secret> {
        self.known.insert(key);
        let path = self.path_of(key);
        let of_texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        let described = KeyDescription {
            allowed: allowed.to_owned(),
            schema: of_texts,
        };
        let mut report = self.report.borrow_mut();
        report.asked.insert(path.clone(), described);
        drop(report);
        let mut secrets = BTreeMap::new();
        let table = match self.values.get(key).map(|value| &value.kind) {
            None => return secrets,
            Some(ValueKind::Table(table)) => table.clone(),
            Some(_) => {
                let origin = ValueOrigin::of(&self.values[key]);
                self.push(path, Some(MASK.to_owned()), None, allowed, &origin);
                return secrets;
            }
        };
        for (name, value) in table {
            let origin = ValueOrigin::of(&value);
            let path = format!("{path}.{name}");
            match &value.kind {
                ValueKind::String(text) => {
                    let secret = Secret::new(text.clone());
                    self.note_given(path, MASK.to_owned(), &value);
                    self.warn_if_odd(&format!("{key}.{name}"), &value);
                    secrets.insert(name, secret);
                }
                _ => self.push(path, Some(MASK.to_owned()), None, "a text", &origin),
            }
        }
        secrets
    }

    /// Reads one value, or returns its default.
    pub(super) fn get_or<T>(
        &mut self,
        key: &'static str,
        shape: &ValueType<'_, T>,
        default: T,
    ) -> T {
        let given = self.get(key, shape);
        self.default_to(key, shape, given, default)
    }

    /// Returns the given value, else a default that may depend on other keys.
    pub(super) fn default_to<T>(
        &self,
        key: &str,
        shape: &ValueType<'_, T>,
        given: Option<T>,
        default: T,
    ) -> T {
        let shown = (shape.show)(&default);
        match given {
            Some(given) => {
                self.warn_if_long(key, shape, &shown);
                given
            }
            None => {
                self.default(key, shown);
                default
            }
        }
    }

    /// Warns of a duration for which another unit was probably meant. `default`: as it is shown; empty
    /// for a key without one.
    pub(super) fn warn_if_long<T>(&self, key: &str, shape: &ValueType<'_, T>, default: &str) {
        let value = self.values.get(key);
        let value = value.filter(|_| shape.is_span && self.is_given(key));
        if let Some(text) = value.and_then(|value| long_span(value, default)) {
            self.warn(key, text);
        }
    }

    /// Reads one value that has no default.
    pub(super) fn get_if_set<T>(
        &mut self,
        key: &'static str,
        shape: &ValueType<'_, T>,
    ) -> Option<T> {
        let given = self.get(key, shape);
        if given.is_none() {
            self.default(key, NOT_SET.to_owned());
        }
        given
    }

    /// Records the default of a missing value.
    fn default(&self, key: &str, shown: String) {
        if !self.idle {
            let path = self.path_of(key);
            self.report.borrow_mut().defaults.insert(path, shown);
        }
    }

    /// Records a warning about a usable value.
    pub(super) fn warn(&self, key: &str, text: String) {
        let path = self.path_of(key);
        let mut report = self.report.borrow_mut();
        let below = format!("{path}.");
        // A section has the place of its first key.
        let given = report.given.get(&path).or_else(|| {
            let mut after = report.given.range(below.clone()..);
            after
                .next()
                .filter(|(key, _)| key.starts_with(&below))
                .map(|(_, given)| given)
        });
        let origin = given.map(|(_, origin)| origin.clone());
        let own = || self.values.get(key).map(ValueOrigin::of);
        let origin = origin
            .or_else(own)
            .unwrap_or_else(ValueOrigin::built_in)
            .place;
        report.warnings.push(Warning {
            key: path,
            text: without_keys(&text),
            origin,
        });
    }

    /// Warns of a secret that was hardly meant as it is.
    fn warn_if_odd(&self, key: &str, secret: &Value) {
        if let Some(odd) = odd_secret::of_value(secret) {
            self.warn(key, odd.text().to_owned());
        }
    }

    /// Returns true if a key below this section was given, and is valid.
    pub(super) fn is_given(&self, key: &str) -> bool {
        let path = self.path_of(key);
        self.report.borrow().given.contains_key(&path)
    }

    /// Returns the text of a word below this section, if it was given and is valid.
    pub(super) fn given_word(&self, key: &str) -> Option<String> {
        let report = self.report.borrow();
        let (shown, _) = report.given.get(&self.path_of(key))?;
        Some(shown.trim_matches('"').to_owned())
    }

    /// Returns the number of entries of a list that was given.
    pub(super) fn list_len(&self, key: &str) -> usize {
        match self.values.get(key).map(|value| &value.kind) {
            Some(ValueKind::Array(values)) => values.len(),
            _ => 0,
        }
    }

    /// Returns the layer of a key; that of the defaults if it was not given.
    pub(super) fn rank_of(&self, key: &str) -> LayerRank {
        let origin = self.values.get(key).map(ValueOrigin::of);
        origin.map_or(LayerRank::BuiltIn, |origin| origin.rank)
    }

    /// Returns true if the key was given, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Returns true if the key was given and is invalid; its relations to other keys are then not
    /// checked.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.has(key) && !self.report.borrow().given.contains_key(&self.path_of(key))
    }

    /// Reports a value that conflicts with another, or is missing.
    pub(super) fn conflict(&self, key: &str, reason: impl Into<String>, allowed: &str) {
        let path = self.path_of(key);
        let given = self.report.borrow().given.get(&path).cloned();
        let (shown, origin) = match given {
            Some((shown, origin)) => (Some(shown), origin),
            None => (None, self.told_origin()),
        };
        self.push(path, shown, Some(reason.into()), allowed, &origin);
    }

    /// Reports that the section itself is not allowed.
    pub(super) fn conflict_here(&self, reason: &str, allowed: &str) {
        let path = self.path.clone();
        let origin = self.told_origin();
        self.push(path, None, Some(reason.to_owned()), allowed, &origin);
    }

    /// Returns the origin of the section: its first value in the lowest layer.
    pub(super) fn origin(&self) -> ValueOrigin {
        let table = self.values.clone().into_iter().collect();
        ValueOrigin::of(&Value::new(None, ValueKind::Table(table)))
    }

    /// Returns the origin to show: an empty table has no line, and nothing in it was built in.
    fn told_origin(&self) -> ValueOrigin {
        match self.present && self.values.is_empty() {
            true => ValueOrigin::new(LayerRank::BuiltIn, "an empty section"),
            false => self.origin(),
        }
    }

    /// Reports keys that do not belong to the chosen kind. A key from a lower layer than the choice
    /// itself is a leftover, and is ignored.
    pub(super) fn reject_others(&self, chooser: &str, allowed: &[&str]) {
        let Some(chosen) = self.values.get(chooser) else {
            return;
        };
        self.only_in(
            chooser,
            &show(chosen),
            ValueOrigin::of(chosen).rank,
            allowed,
        );
    }

    /// Does the same for a kind with a default, which need not be given.
    pub(super) fn only_or(&self, chooser: &str, default: &str, allowed: &[&str]) {
        if self.has(chooser) {
            self.reject_others(chooser, allowed);
        } else {
            self.only_in(chooser, default, LayerRank::BuiltIn, allowed);
        }
    }

    fn only_in(&self, chooser: &str, chosen: &str, rank: LayerRank, allowed: &[&str]) {
        for (key, value) in &self.values {
            let alien = key != chooser
                && self.known.contains(key.as_str())
                && !allowed.contains(&key.as_str());
            if alien && ValueOrigin::of(value).rank >= rank {
                let reason = format!("it does not apply with {chooser} = {chosen}");
                let path = self.path_of(key);
                let shown = match holds_secrets(&path) || is_sensitive(&path) {
                    true => MASK.to_owned(),
                    false => show(value),
                };
                let origin = ValueOrigin::of(value);
                self.push(path, Some(shown), Some(reason), "to leave it out", &origin);
            }
        }
    }

    /// Reports every unknown key.
    pub(super) fn finish(self) {
        for (key, value) in &self.values {
            if self.known.contains(key.as_str()) {
                continue;
            }
            let known: Vec<&'static str> = self.known.iter().copied().collect();
            let advice = variable_names::at_top(&self, key, value);
            let advice = advice.or_else(|| unknown_key::advice(&self.path, (key, value), &known));
            let (reason, near, allowed) = match advice {
                Some(advice) => (advice.text, Some(advice.name), advice.allowed),
                None => ("unknown key".to_owned(), None, None),
            };
            let near = near.as_deref().filter(|_| !holds_secrets(&self.path));
            let origin = ValueOrigin::of(value);
            // An empty table has no line, and nothing that is unknown was built in.
            let is_placed = origin != ValueOrigin::built_in();
            let origin = match is_placed {
                true => origin,
                false => ValueOrigin::new(LayerRank::BuiltIn, "an empty section"),
            };
            self.push(
                self.path_of(key),
                Some(show_unknown(key, near, value)),
                Some(reason),
                &allowed.unwrap_or_else(|| match near {
                    // A long list would hide the one that was meant.
                    Some(near) if known.len() > MANY => near.to_owned(),
                    _ => known.join(", "),
                }),
                &origin,
            );
        }
    }

    /// Returns a value as it was given.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports a value in place of this section: no key that is known says what it is.
    fn misplaced(&self, value: &Value, reason: String, allowed: &str) {
        let path = self.path.clone();
        let secret = holds_secrets(&path) || is_sensitive(&path);
        let shown = match secret {
            true => MASK.to_owned(),
            false => show_unknown(&path, Some(""), value),
        };
        self.push(
            path,
            Some(shown),
            Some(reason),
            allowed,
            &ValueOrigin::of(value),
        );
    }

    /// Reports a value.
    pub(super) fn push(
        &self,
        key: String,
        given: Option<String>,
        reason: Option<String>,
        allowed: &str,
        origin: &ValueOrigin,
    ) {
        self.report.borrow_mut().problems.push(Problem {
            key,
            given,
            // SEC-1: it may tell of the value.
            reason: reason.map(|reason| without_keys(&reason)),
            allowed: allowed.to_owned(),
            origin: origin.place.clone(),
            excerpt: None,
        });
    }
}

/// Returns true for the sections in which any value may be a secret.
fn holds_secrets(path: &str) -> bool {
    ["admin", "fleet", "otel"].contains(&path)
}
