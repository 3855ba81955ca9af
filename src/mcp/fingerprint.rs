//! Fingerprint of a tool call for the quarantine: the tool and its arguments in canonical form.
//!
//! Objects count the same whatever the order of their members. Nothing is copied: the value is
//! hashed as it is read, so a text needs no tree.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Returns the fingerprint of a call: neither its id, nor its key, nor its metadata is part of it.
///
/// `arguments`: a JSON value, or the reader of a JSON text. One that cannot be read counts as its
/// tool alone.
///
/// # Source  Rule SUP-6 in docs/rules.md.
pub(super) fn of_call<'de>(tool: &str, arguments: impl Deserializer<'de>) -> u64 {
    let mut hasher = DefaultHasher::new();
    tool.hash(&mut hasher);
    // SUP-6: the same call has the same fingerprint, in whatever order its arguments come.
    ValueHash
        .deserialize(arguments)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// Reader of one value, which returns its hash.
#[derive(Debug, Clone, Copy)]
struct ValueHash;

fn hash_of(kind: u8, value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

impl<'de> DeserializeSeed<'de> for ValueHash {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<u64, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueHash {
    type Value = u64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(hash_of(0, ()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<u64, E> {
        Ok(hash_of(1, value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(hash_of(2, i128::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
        Ok(hash_of(2, i128::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<u64, E> {
        Ok(hash_of(3, value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<u64, E> {
        Ok(hash_of(4, value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut hasher = DefaultHasher::new();
        5_u8.hash(&mut hasher);
        while let Some(item) = items.next_element_seed(Self)? {
            item.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u64, A::Error> {
        // A sum does not depend on the order of the members.
        let mut sum = 0_u64;
        while let Some(key) = members.next_key_seed(Self)? {
            let value = members.next_value_seed(Self)?;
            sum = sum.wrapping_add(hash_of(6, (key, value)));
        }
        Ok(hash_of(7, sum))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of_text(text: &str) -> u64 {
        of_call("tool", &mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn sup_6_m16_a_fingerprint_ignores_the_order_of_members_and_nothing_else() {
        let one = r#"{ "a": 1, "b": { "x": [1, 2], "y": null } }"#;
        let other = r#"{"b":{"y":null,"x":[1,2]},"a":1}"#;
        assert_eq!(of_text(one), of_text(other));
        let value: Value = serde_json::from_str(other).unwrap();
        assert_eq!(of_call("tool", &value), of_text(one));
        assert_ne!(of_call("another", &value), of_text(one));
        let different = [
            json!({}),
            json!({ "a": 1 }),
            json!({ "a": "1", "b": { "x": [1, 2], "y": null } }),
            json!({ "a": 1, "b": { "x": [2, 1], "y": null } }),
            json!({ "a": 1, "b": { "x": [1, 2], "y": false } }),
            json!({ "b": 1, "a": { "x": [1, 2], "y": null } }),
        ];
        for value in different {
            assert_ne!(of_call("tool", &value), of_text(one), "{value}");
        }
    }
}
