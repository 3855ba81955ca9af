//! Filters of searches: conditions on the metadata of points, the same for every store.

use serde_json::{Map, Value};

/// Conditions on metadata, all of which a result meets. Empty: every point is a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VectorFilter {
    conditions: Vec<FieldCondition>,
}

/// A condition on one field of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FieldCondition {
    /// The field.
    pub field: String,
    /// The test of its value.
    pub test: FieldTest,
}

/// A test of a field's value. A point without the field meets none but the negative ones.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FieldTest {
    /// The value is one of these.
    OneOf(Vec<Value>),
    /// The value is none of these, or there is none.
    NoneOf(Vec<Value>),
    /// The value is a number of at least this.
    AtLeast(f64),
    /// The value is a number of at most this.
    AtMost(f64),
}

impl VectorFilter {
    /// Adds the condition that the field has this value.
    #[must_use]
    pub fn is(self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.and(field, FieldTest::OneOf(vec![value.into()]))
    }

    /// Adds the condition that the field does not have this value.
    #[must_use]
    pub fn is_not(self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.and(field, FieldTest::NoneOf(vec![value.into()]))
    }

    /// Adds the condition that the field has one of these values.
    #[must_use]
    pub fn one_of(
        self,
        field: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.and(field, FieldTest::OneOf(values))
    }

    /// Adds the condition that the field is a number of at least this.
    #[must_use]
    pub fn at_least(self, field: impl Into<String>, least: f64) -> Self {
        self.and(field, FieldTest::AtLeast(least))
    }

    /// Adds the condition that the field is a number of at most this.
    #[must_use]
    pub fn at_most(self, field: impl Into<String>, most: f64) -> Self {
        self.and(field, FieldTest::AtMost(most))
    }

    /// Adds a condition.
    #[must_use]
    pub fn and(mut self, field: impl Into<String>, test: FieldTest) -> Self {
        let field = field.into();
        self.conditions.push(FieldCondition { field, test });
        self
    }

    /// Returns the conditions, for a provider that translates them.
    #[must_use]
    pub fn conditions(&self) -> &[FieldCondition] {
        &self.conditions
    }

    /// Returns true if there are no conditions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Returns true if a point with this metadata meets all conditions.
    #[must_use]
    pub fn accepts(&self, metadata: &Map<String, Value>) -> bool {
        self.conditions
            .iter()
            .all(|one| one.test.accepts(metadata.get(&one.field)))
    }
}

impl FieldTest {
    fn accepts(&self, value: Option<&Value>) -> bool {
        match self {
            Self::OneOf(values) => value.is_some_and(|value| holds(values, value)),
            Self::NoneOf(values) => !value.is_some_and(|value| holds(values, value)),
            Self::AtLeast(least) => number(value).is_some_and(|number| number >= *least),
            Self::AtMost(most) => number(value).is_some_and(|number| number <= *most),
        }
    }
}

/// Returns true if a value, or an element of it, is in the list; 1 and 1.0 are the same.
fn holds(values: &[Value], value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().any(|one| holds(values, one)),
        Value::Number(_) => values
            .iter()
            .any(|one| one.is_number() && one.as_f64() == value.as_f64()),
        _ => values.contains(value),
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn agents_every_condition_of_a_filter_must_hold() {
        let Value::Object(note) = json!({"kind": "note", "year": 2026, "tags": ["a", "b"]}) else {
            unreachable!();
        };
        let all = VectorFilter::default;
        for (filter, accepted) in [
            (all(), true),
            (all().is("kind", "note").is("year", 2026.0), true),
            (all().is("kind", "note").is("year", 2025), false),
            (all().is_not("kind", "page").is_not("other", 1), true),
            (all().is_not("tags", "b"), false),
            (all().one_of("tags", ["b", "c"]), true),
            (all().at_least("year", 2026.0).at_most("year", 2026.0), true),
            (all().at_least("year", 2026.5), false),
            (all().at_most("kind", 1.0), false),
            (all().is("missing", Value::Null), false),
        ] {
            assert_eq!(filter.accepts(&note), accepted, "{filter:?}");
        }
    }
}
