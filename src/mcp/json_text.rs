//! JSON as text: kept as it came, and read only where its content matters.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value that is kept as text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(Bytes);

impl JsonText {
    /// Takes a text that was checked to be JSON.
    pub(crate) fn checked(text: Bytes) -> Self {
        Self(text)
    }

    /// Writes a value as text.
    pub(crate) fn of(value: &Value) -> Self {
        Self(Bytes::from(value.to_string()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was checked to be JSON, which is UTF-8.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// Reads the text as a value. A large text takes many times its size as a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        self.read().unwrap_or(Value::Null)
    }

    /// Reads the text as a type; `None` if it has another shape.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.0).ok()
    }

    /// Returns a text of its own, which keeps no other in memory.
    #[cfg(feature = "gateway")]
    pub(crate) fn copied(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    pub(crate) fn is_object(&self) -> bool {
        self.0.first() == Some(&b'{')
    }
}

/// Shows the length, but not the text: it may be secret.
impl fmt::Debug for JsonText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JsonText({} bytes)", self.0.len())
    }
}

/// Returns the part of a text that a raw value was read from.
pub(crate) fn part_of(text: &Bytes, raw: &RawValue) -> JsonText {
    JsonText(text.slice_ref(raw.get().as_bytes()))
}

/// Returns the place of a part in its text.
fn place_of(text: &Bytes, part: &JsonText) -> Range<usize> {
    let start = (part.0.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let end = start.saturating_add(part.0.len());
    if end <= text.len() { start..end } else { 0..0 }
}

/// A change of one member of an object.
pub(crate) struct MemberEdit<'a> {
    /// The name; plain letters that need no escape.
    pub(crate) name: &'a str,
    /// The member's present value, a part of the object's text.
    pub(crate) present: Option<&'a JsonText>,
    /// The value to be.
    pub(crate) value: Bytes,
}

/// Returns the text of an object with changed members, in pieces: what stays is not copied.
///
/// MCP-2: a message passes as the text that it came in.
pub(crate) fn edited(object: &JsonText, edits: Vec<MemberEdit<'_>>) -> Vec<Bytes> {
    let text = &object.0;
    let mut added = Vec::new();
    let mut places = Vec::new();
    for edit in edits {
        match edit.present {
            Some(present) => places.push((place_of(text, present), edit.value)),
            None => {
                let separator = if added.is_empty() { "\"" } else { ",\"" };
                added.extend_from_slice(separator.as_bytes());
                added.extend_from_slice(edit.name.as_bytes());
                added.extend_from_slice(b"\":");
                added.extend_from_slice(&edit.value);
            }
        }
    }
    let mut pieces = Vec::with_capacity(4 + 2 * places.len());
    let mut at = 0;
    if !added.is_empty() {
        at = 1;
        let is_empty = text[1..].trim_ascii_start().first() == Some(&b'}');
        if !is_empty {
            added.push(b',');
        }
        pieces.push(Bytes::from_static(b"{"));
        pieces.push(Bytes::from(added));
    }
    places.sort_by_key(|(place, _)| place.start);
    for (place, value) in places {
        if place.start >= at && !place.is_empty() {
            pieces.push(text.slice(at..place.start));
            pieces.push(value);
            at = place.end;
        }
    }
    pieces.push(text.slice(at..));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Returns the text of an object without one member. `present`: its value, a part of the text.
#[cfg(any(test, feature = "gateway"))]
pub(crate) fn without_member(object: &JsonText, present: &JsonText) -> JsonText {
    let text = &object.0;
    let place = place_of(text, present);
    let quote = |until: usize| text[..until].iter().rposition(|byte| *byte == b'"');
    // The name has no escaped quotes in it.
    let Some(name) = quote(place.start).and_then(quote) else {
        return object.clone();
    };
    let before = text[..name].trim_ascii_end();
    let after = text[place.end..].trim_ascii_start();
    let (before, after) = match (before.strip_suffix(b","), after.strip_prefix(b",")) {
        (Some(before), _) => (before, after),
        (None, Some(after)) => (before, after),
        (None, None) => (before, after),
    };
    JsonText(Bytes::from([before, after].concat()))
}

/// Joins pieces into one text.
pub(crate) fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [one] => one.clone(),
        many => Bytes::from(many.concat()),
    }
}

/// Returns the text without line breaks, which in JSON stand between the parts of a value only.
pub(crate) fn in_one_line(text: Bytes) -> Bytes {
    // `contains` of bytes searches by words; it is fast in every profile.
    if !text.contains(&b'\n') && !text.contains(&b'\r') {
        return text;
    }
    let plain = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    };
    text.iter().map(plain).collect::<Vec<u8>>().into()
}

/// Returns a text as a JSON string.
pub(crate) fn quoted(text: &str) -> Bytes {
    Bytes::from(Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        a: Option<&'a RawValue>,
    }

    fn with_a(text: &'static str, value: &'static str) -> Value {
        let object = JsonText::checked(Bytes::from_static(text.as_bytes()));
        let head: Head<'_> = serde_json::from_slice(object.bytes()).unwrap();
        let present = head.a.map(|raw| part_of(object.bytes(), raw));
        let new = MemberEdit {
            name: "b",
            present: None,
            value: Bytes::from_static(b"7"),
        };
        let edit = MemberEdit {
            name: "a",
            present: present.as_ref(),
            value: Bytes::from_static(value.as_bytes()),
        };
        serde_json::from_slice(&joined(&edited(&object, vec![edit, new]))).unwrap()
    }

    #[test]
    fn mcp_2_m13_members_are_changed_and_added_in_the_text() {
        assert_eq!(with_a("{}", "1"), json!({ "a": 1, "b": 7 }));
        assert_eq!(with_a(" { } ".trim(), "1"), json!({ "a": 1, "b": 7 }));
        assert_eq!(
            with_a("{\"x\":[{}], \"a\" : {\"a\":2}, \"y\":\"a\"}", "[3]"),
            json!({ "x": [{}], "a": [3], "y": "a", "b": 7 })
        );
    }

    #[test]
    fn mcp_3_a10_a_member_is_taken_out_of_the_text() {
        for (text, left) in [
            (r#"{"a":"x"}"#, "{}"),
            (r#"{ "a" : {"b":1} , "c":2}"#, r#"{ "c":2}"#),
            (r#"{"c":"\"a\":", "a":[1,"a"]}"#, r#"{"c":"\"a\":"}"#),
            (r#"{"c":1,"a":null , "d":3}"#, r#"{"c":1, "d":3}"#),
        ] {
            let left: Value = serde_json::from_str(left).unwrap();
            let object = JsonText::checked(Bytes::from(text));
            let all: std::collections::BTreeMap<String, &RawValue> =
                serde_json::from_slice(object.bytes()).unwrap();
            let present = part_of(object.bytes(), all["a"]);
            assert_eq!(without_member(&object, &present).to_value(), left);
        }
    }

    #[test]
    fn mcp_2_m13_a_line_has_no_line_breaks() {
        let text = Bytes::from_static(b"{\r\n \"a\": \"x\\n\"\n}");
        assert_eq!(&in_one_line(text)[..], b"{   \"a\": \"x\\n\" }");
    }
}
