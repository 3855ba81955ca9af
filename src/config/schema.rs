//! The JSON Schema of the configuration, for editors: made from the descriptions that the readers of
//! the sections use, so that it cannot say anything else.
//!
//! It describes files. In variables each value is a text, and relations between keys are left to
//! `breakerbox check`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::section::{KeyDescription, LoadReport};

/// Draft of the schema: the one that editors know best.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// Returns the JSON Schema of the configuration files, with a line break at its end.
#[must_use]
pub fn schema() -> String {
    let report = describe();
    let mut root = SchemaNode::default();
    for (path, key) in &report.asked {
        root.at(path).own.push(own(key, report.defaults.get(path)));
    }
    for (path, word) in &report.words {
        root.at(path).own.push(json!({ "const": word }));
    }
    for path in &report.shorts {
        let kind = report.asked.get(&format!("{path}.kind"));
        let short = kind.map(|kind| kind.schema.clone());
        root.at(path).own.extend(short);
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!(DRAFT));
    schema.insert("title".to_owned(), json!("The configuration of Breakerbox"));
    schema.extend(root.object());
    let text = serde_json::to_string_pretty(&Value::Object(schema));
    // A tree of texts always serializes.
    text.unwrap_or_default() + "\n"
}

fn describe() -> LoadReport {
    let report = RefCell::new(LoadReport {
        describes: true,
        ..LoadReport::default()
    });
    super::read_root(&super::every_table(), "", &report);
    report.into_inner()
}

/// Returns the schema of one key.
fn own(key: &KeyDescription, default: Option<&String>) -> Value {
    let mut schema = key.schema.clone();
    let Some(fields) = schema.as_object_mut() else {
        return schema;
    };
    let mut words = format!("Allowed: {}.", key.allowed);
    if let Some(default) = default {
        words.push_str(&format!(" Default: {default}."));
        if let Ok(value) = serde_json::from_str::<Value>(default) {
            fields.insert("default".to_owned(), value);
        }
    }
    fields.insert("description".to_owned(), json!(words));
    schema
}

/// A key or a section.
#[derive(Default)]
struct SchemaNode {
    /// Schemas of its values, beside a table.
    own: Vec<Value>,
    below: BTreeMap<String, SchemaNode>,
}

impl SchemaNode {
    fn at(&mut self, path: &str) -> &mut Self {
        let parts = path.replace("[0]", ".[0]");
        let mut node = self;
        for part in parts.split('.') {
            node = node.below.entry(part.to_owned()).or_default();
        }
        node
    }

    fn schema(&self) -> Value {
        let mut ways = self.own.clone();
        if let Some(items) = self.below.get("[0]") {
            ways.push(json!({ "type": "array", "items": items.schema() }));
        } else if !self.below.is_empty() {
            ways.push(Value::Object(self.object()));
        }
        match (ways.len(), ways.pop()) {
            (0, _) | (_, None) => json!({}),
            (1, Some(only)) => only,
            (_, Some(last)) => {
                ways.push(last);
                json!({ "anyOf": ways })
            }
        }
    }

    /// Returns the schema of a table. The name `*` is data: any name may be there.
    fn object(&self) -> Map<String, Value> {
        let named = self.below.iter().filter(|(name, _)| *name != "*");
        let named: Map<String, Value> = named
            .map(|(name, node)| (name.clone(), node.schema()))
            .collect();
        let others = match self.below.get("*") {
            Some(node) => node.schema(),
            None => json!(false),
        };
        let mut object = Map::new();
        object.insert("type".to_owned(), json!("object"));
        object.insert("additionalProperties".to_owned(), others);
        if !named.is_empty() {
            object.insert("properties".to_owned(), Value::Object(named));
        }
        object
    }
}
