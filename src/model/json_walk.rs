//! A walk through a JSON text that names each scalar with the path to it, without a tree in memory.
//!
//! It decides nothing: the dialects give a path its meaning.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum length of the paths that are told; what lies deeper has the path of the last step.
const MAX_STEPS: usize = 8;

/// A step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonStep<'a> {
    /// A member of an object.
    Key(&'a str),
    /// An item of an array.
    Item(usize),
}

/// A scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Leaf<'a> {
    /// A string.
    Text(&'a str),
    /// A whole number that is not negative.
    Count(u64),
    /// Any other number, or a boolean.
    Other,
    /// `null`.
    Null,
}

impl Leaf<'_> {
    /// Returns the length of a string, in bytes; 0 for anything else.
    pub(super) const fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            _ => 0,
        }
    }
}

type Sink<'s> = &'s mut dyn FnMut(&[JsonStep<'_>], Leaf<'_>);

/// Names each scalar of a text. Returns false if the text is no JSON; the scalars before the mistake
/// have been named then.
pub(super) fn walk(text: &[u8], sink: Sink<'_>) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let node = JsonNode { path: &[], sink };
    node.deserialize(&mut reader).is_ok() && reader.end().is_ok()
}

/// A value and the path to it.
struct JsonNode<'p, 's> {
    path: &'p [JsonStep<'p>],
    sink: Sink<'s>,
}

impl JsonNode<'_, '_> {
    fn leaf(self, leaf: Leaf<'_>) {
        (self.sink)(self.path, leaf);
    }
}

/// Returns a path with one more step, as far as there is room.
fn onward<'p>(
    path: &[JsonStep<'p>],
    step: JsonStep<'p>,
    room: &mut [JsonStep<'p>; MAX_STEPS],
) -> usize {
    let length = path.len().min(MAX_STEPS);
    room[..length].copy_from_slice(&path[..length]);
    if length == MAX_STEPS {
        return length;
    }
    room[length] = step;
    length + 1
}

impl<'de> DeserializeSeed<'de> for JsonNode<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonNode<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.leaf(Leaf::Text(text));
        Ok(())
    }

    fn visit_u64<E>(self, count: u64) -> Result<(), E> {
        self.leaf(Leaf::Count(count));
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.leaf(Leaf::Other);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.leaf(Leaf::Other);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.leaf(Leaf::Other);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.leaf(Leaf::Null);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(MemberName(name)) = members.next_key()? {
            let mut room = [JsonStep::Item(0); MAX_STEPS];
            let length = onward(self.path, JsonStep::Key(&name), &mut room);
            members.next_value_seed(JsonNode {
                path: &room[..length],
                sink: &mut *self.sink,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for at in 0.. {
            let mut room = [JsonStep::Item(0); MAX_STEPS];
            let length = onward(self.path, JsonStep::Item(at), &mut room);
            let node = JsonNode {
                path: &room[..length],
                sink: &mut *self.sink,
            };
            if items.next_element_seed(node)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// The name of a member, borrowed where it has no escapes.
struct MemberName<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = MemberName<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Owned(name.to_owned())))
            }
        }
        value.deserialize_str(NameVisitor)
    }
}

/// Returns the members of an object that have one of these names, with their texts as they stand.
/// `None` if the text is no object.
pub(super) fn members<'a>(text: &'a [u8], names: &[&str]) -> Option<Vec<(usize, &'a RawValue)>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = reader.deserialize_map(MemberFinder(names)).ok()?;
    reader.end().is_ok().then_some(found)
}

struct MemberFinder<'n>(&'n [&'n str]);

impl<'de> Visitor<'de> for MemberFinder<'_> {
    type Value = Vec<(usize, &'de RawValue)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(MemberName(name)) = members.next_key()? {
            match self.0.iter().position(|known| *known == name) {
                Some(at) => found.push((at, members.next_value()?)),
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scalar_is_named_with_its_path() {
        let text = br#"{"a":[{"b\u0041":"x"},2,-1,true,null],"c":1.5}"#;
        let mut seen = Vec::new();
        assert!(walk(text, &mut |path, leaf| {
            seen.push(format!("{path:?} {leaf:?}"));
        }));
        let expected = [
            r#"[Key("a"), Item(0), Key("bA")] Text("x")"#,
            r#"[Key("a"), Item(1)] Count(2)"#,
            r#"[Key("a"), Item(2)] Other"#,
            r#"[Key("a"), Item(3)] Other"#,
            r#"[Key("a"), Item(4)] Null"#,
            r#"[Key("c")] Other"#,
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn depth_is_bounded_and_garbage_is_told() {
        let mut longest = 0;
        let deep = [&b"["[..]; 20].concat();
        let text = [&deep[..], b"1", &[&b"]"[..]; 20].concat()].concat();
        assert!(walk(&text, &mut |path, _| longest = longest.max(path.len())));
        assert_eq!(longest, MAX_STEPS);
        assert!(!walk(&b"[".repeat(100_000), &mut |_, _| {}));
        for text in [&b"{\"a\":1"[..], b"{} {}", b"", b"\xff"] {
            assert!(!walk(text, &mut |_, _| {}), "{text:?}");
        }
    }

    #[test]
    fn members_are_found_as_they_stand() {
        let text = br#" {"a": "x", "model" : "g\u0041", "b": {"model":1}, "model":"h"} "#;
        let found = members(text, &["b", "model"]).unwrap();
        let found: Vec<_> = found.iter().map(|(at, raw)| (*at, raw.get())).collect();
        assert_eq!(
            found,
            [(1, r#""g\u0041""#), (0, r#"{"model":1}"#), (1, r#""h""#)]
        );
        assert!(members(b"[1]", &["a"]).is_none());
        assert!(members(b"{\"a\":1", &["a"]).is_none());
    }
}
