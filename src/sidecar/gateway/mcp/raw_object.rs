//! JSON objects with members that stay as they were written.
//!
//! Only what the gateway has to look at is parsed; the rest is neither read nor written anew, so
//! that nothing of it is changed (rule MCP-2).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An object: its members in their order, with their values as texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawObject<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> RawObject<'a> {
    /// Reads an object; `None` if the text is anything else.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the text of a member; `None` if there is none, or several of this name: receivers
    /// differ in which one they take.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.member(name).map(AsRef::as_ref)
    }

    fn member(&self, name: &str) -> Option<&Cow<'a, str>> {
        let mut found = self.members.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Returns a member that is a string.
    pub(crate) fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// Returns a member that is a string, as a part of the text that was read unless it has escapes.
    pub(crate) fn part(&self, name: &str) -> Option<Cow<'a, str>> {
        match self.member(name)? {
            Cow::Borrowed(value) => {
                let read: Option<MemberName<'a>> = serde_json::from_str(value).ok();
                read.map(|text| text.0)
            }
            Cow::Owned(value) => serde_json::from_str(value).ok().map(Cow::Owned),
        }
    }

    /// Calls a function with the text of each item of a member that is an array, as it was read.
    ///
    /// MCP-2: no list of the items is made beside their text.
    pub(crate) fn each_item(&self, name: &str, take: impl FnMut(&'a str)) {
        if let Some(Cow::Borrowed(items)) = self.member(name) {
            let mut reader = serde_json::Deserializer::from_str(items);
            // A member that is no array has no items.
            let _ = reader.deserialize_seq(ItemReader(take));
        }
    }

    /// Returns the texts of a member that is an array.
    pub(crate) fn items(&self, name: &str) -> Option<Vec<&str>> {
        let items: Vec<&RawValue> = serde_json::from_str(self.get(name)?).ok()?;
        Some(items.into_iter().map(RawValue::get).collect())
    }

    /// Replaces a member, or adds it. `value`: as JSON.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        self.members.retain({
            let mut is_first = true;
            move |(key, _)| key != name || std::mem::take(&mut is_first)
        });
        match self.members.iter_mut().find(|(key, _)| key == name) {
            Some(member) => member.1 = value,
            None => self.members.push((Cow::Owned(name.to_owned()), value)),
        }
    }

    /// Replaces a member by a string, or adds it.
    pub(crate) fn set_string(&mut self, name: &str, value: &str) {
        self.set(name, quoted(value));
    }

    /// Returns the text of the object.
    pub(crate) fn write(&self) -> String {
        let length = self.members.iter();
        let length: usize = length.map(|(key, value)| key.len() + value.len() + 4).sum();
        let mut text = String::with_capacity(length + 2);
        text.push('{');
        for (index, (key, value)) in self.members.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&quoted(key));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }
}

/// Returns a text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Joins texts of values to an array.
pub(crate) fn array<T: AsRef<str>>(items: &[T]) -> String {
    let length: usize = items.iter().map(|item| item.as_ref().len() + 1).sum();
    let mut text = String::with_capacity(length + 2);
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
    text.push(']');
    text
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<MemberName<'de>, &RawValue>()? {
                    members.push((key.0, Cow::Borrowed(value.get())));
                }
                Ok(RawObject { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Reader of an array that calls a function with the text of each item.
struct ItemReader<F>(F);

impl<'de, F: FnMut(&'de str)> Visitor<'de> for ItemReader<F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            (self.0)(item.get());
        }
        Ok(())
    }
}

/// The name of a member, borrowed unless it has escapes.
#[derive(Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcp_6_an_object_is_changed_in_one_place_only() {
        let text = r#"{"n\u0061me":"a", "big": 12345678901234567890.10, "in": {"b" : [1, 2]}}"#;
        let mut object = RawObject::read(text).unwrap();
        assert_eq!(object.string("name").as_deref(), Some("a"));
        assert_eq!(object.get("none"), None);
        object.set_string("name", "b\"c");
        object.set("more", "true");
        let written =
            r#"{"name":"b\"c","big":12345678901234567890.10,"in":{"b" : [1, 2]},"more":true}"#;
        assert_eq!(object.write(), written);
        assert!(RawObject::read("[1]").is_none());
        let double = RawObject::read(r#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(double.get("a"), None, "it is ambiguous");
        let mut double = double;
        double.set("a", "3");
        assert_eq!(double.write(), r#"{"a":3}"#);
    }

    #[test]
    fn mcp_6_arrays_keep_their_items() {
        let object = RawObject::read(r#"{"tools":[ {"a": 1} , 2 ]}"#).unwrap();
        let items = object.items("tools").unwrap();
        assert_eq!(items, [r#"{"a": 1}"#, "2"]);
        assert_eq!(array(&items), r#"[{"a": 1},2]"#);
        assert_eq!(array::<&str>(&[]), "[]");
    }
}
