//! One text for all JSON texts of an equal value: members by their names, numbers by their digits,
//! without spaces.
//!
//! MCP-2: nothing is read into a tree, and no number is rounded. What is nested deeply stays as it is
//! written. So texts of different values never become one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::message::LARGE;

/// Depth of nesting from which on a part stays as it is: each level is read once more.
const MAX_DEPTH: usize = 16;

/// Returns the text. A large one stays as it is.
pub(super) fn canonical(whole: &str) -> Cow<'_, str> {
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
            Some(b'-' | b'0'..=b'9') => write_number(text, into),
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

/// Writes the digits of a number without zeros around them, and its power of ten: `100`, `100.0` and
/// `1E2` are one. Nothing is rounded.
fn write_number(text: &str, into: &mut String) -> bool {
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => ("-", number),
        None => ("", text),
    };
    let (number, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let shown = digits.trim_end_matches('0');
    if shown.is_empty() {
        into.push('0');
        return true;
    }
    // Lengths are those of a text in memory.
    let shift = (digits.len() - shown.len()) as i128 - fraction.len() as i128;
    let Ok(power) = power.parse::<i64>() else {
        return false;
    };
    into.push_str(sign);
    into.push_str(shown);
    match i128::from(power) + shift {
        0 => {}
        power => into.push_str(&format!("e{power}")),
    }
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
        canonical(text).into_owned()
    }

    #[test]
    fn sup_6_a_number_is_the_same_however_it_is_written() {
        for numbers in [
            ["1", "1.0", "1e0", "10E-1", "0.1e+1"],
            ["100", "1E2", "100.0", "1.00e2", "1000e-1"],
            ["-0.5", "-5e-1", "-0.50", "-0.05E1", "-5.0e-01"],
            ["0", "-0", "0.0", "0e7", "-0.0E-3"],
        ] {
            for number in numbers {
                assert_eq!(of(number), of(numbers[0]), "{number}");
            }
        }
        // A power that is no number of ours stays as it is written.
        let large = "1e99999999999999999999";
        assert_eq!(of(large), large);
        assert_ne!(of("1e9223372036854775807"), of("10e9223372036854775807"));
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
            ("[1]".to_owned(), "[-1]".to_owned()),
            ("[12]".to_owned(), "[1,2]".to_owned()),
            ("[1e2]".to_owned(), "[1e3]".to_owned()),
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
