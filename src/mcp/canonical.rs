//! One text for all JSON texts of an equal value: members by their names, without spaces.
//!
//! MCP-2: nothing is read into a tree. Numbers stay as they are written, and so does what is nested
//! deeply, so that texts of different values never become one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json_text::JsonText;
use super::message::LARGE;

/// Depth of nesting from which on a part stays as it is: each level is read once more.
const MAX_DEPTH: usize = 16;

/// Returns the text. A large one stays as it is.
pub(super) fn canonical(text: &JsonText) -> Cow<'_, str> {
    let whole = text.as_str();
    if whole.len() > LARGE {
        return whole.into();
    }
    let mut written = String::with_capacity(whole.len());
    write(whole, 0, &mut written);
    written.into()
}

fn write(text: &str, depth: usize, into: &mut String) {
    let text = text.trim_ascii();
    let is_written = depth < MAX_DEPTH
        && match text.as_bytes().first() {
            Some(b'{') => write_members(text, depth, into),
            Some(b'[') => write_items(text, depth, into),
            Some(b'"') => write_string(text, into),
            _ => false,
        };
    if !is_written {
        into.push_str(text);
    }
}

fn write_members(text: &str, depth: usize, into: &mut String) -> bool {
    let Ok(MemberList(mut members)) = serde_json::from_str(text) else {
        return false;
    };
    // Members of one name keep their order, which may matter to the server.
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    into.push('{');
    for (number, (name, value)) in members.iter().enumerate() {
        if number > 0 {
            into.push(',');
        }
        into.push_str(&Value::from(name.as_str()).to_string());
        into.push(':');
        write(value.get(), depth + 1, into);
    }
    into.push('}');
    true
}

fn write_items(text: &str, depth: usize, into: &mut String) -> bool {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) else {
        return false;
    };
    into.push('[');
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            into.push(',');
        }
        write(item.get(), depth + 1, into);
    }
    into.push(']');
    true
}

fn write_string(text: &str, into: &mut String) -> bool {
    let Ok(read) = serde_json::from_str::<Cow<'_, str>>(text) else {
        return false;
    };
    into.push_str(&Value::from(&*read).to_string());
    true
}

/// The members of an object in their order, also those of one name.
struct MemberList<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for MemberList<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct MemberVisitor;
        impl<'de> Visitor<'de> for MemberVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        from.deserialize_map(MemberVisitor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let text = JsonText::checked(text.to_owned().into());
        canonical(&text).into_owned()
    }

    #[test]
    fn mcp_2_m13_texts_of_one_value_are_one_and_those_of_others_are_others() {
        let text = r#" { "b" : [ 1 , "\u0061" , { } , [ ] ] , "a" : null } "#;
        assert_eq!(of(text), r#"{"a":null,"b":[1,"a",{},[]]}"#);
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(300), "]".repeat(300));
        for (one, other) in [
            // As values, both would be rounded to one number.
            (
                "[18446744073709551617]".to_owned(),
                "[18446744073709551618]".to_owned(),
            ),
            ("[0.1]".to_owned(), "[0.10000000000000000001]".to_owned()),
            // As values, both would be nested too deeply.
            (deep("1"), deep("2")),
            (r#"{"a":1,"a":2}"#.to_owned(), r#"{"a":2}"#.to_owned()),
            (r#"{"a":1,"a":2}"#.to_owned(), r#"{"a":2,"a":1}"#.to_owned()),
            (r#""\ud800""#.to_owned(), r#""\ud801""#.to_owned()),
        ] {
            assert_ne!(of(&one), of(&other));
        }
    }
}
