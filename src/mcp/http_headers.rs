//! Headers by which middle boxes route the requests of the newer dialect, and the one by which a
//! server names another address.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json_text::JsonText;
use super::message::ParamsHead;
use super::server_state::ServerState;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";
/// Maximum size of arguments that are searched for values of headers, in bytes.
const MAX_ARGUMENTS: usize = 1 << 20;

/// Returns a text as the value of a header. A text that no header may have is encoded.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let is_alone = text.trim() == text && !(text.starts_with(PREFIX) && text.ends_with(SUFFIX));
    if is_plain && is_alone {
        return text.to_owned();
    }
    format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(text))
}

/// Returns the text in the value of a header; `None` if its encoding is invalid.
#[cfg(feature = "gateway")]
pub(crate) fn decoded(value: &str) -> Option<String> {
    let inner = value
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    match inner {
        Some(inner) => String::from_utf8(STANDARD.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

/// An argument that goes into a header too: its path, and the header's last part.
pub(crate) type HeaderParam = (Vec<String>, String);

/// Returns the arguments of a tool that go into headers too.
pub(super) fn header_params(schema: &Value) -> Vec<HeaderParam> {
    let mut found = Vec::new();
    search(schema, &mut Vec::new(), &mut found);
    found
}

fn search(schema: &Value, path: &mut Vec<String>, found: &mut Vec<HeaderParam>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    if path.len() > 8 {
        return;
    }
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            found.push((path.clone(), header.to_owned()));
        }
        search(property, path, found);
        path.pop();
    }
}

/// Returns the text of an argument, as a header has it. Arguments that are too large have none.
///
/// MCP-2: the arguments are not read into a tree.
pub(crate) fn argument_text(arguments: &JsonText, path: &[String]) -> Option<String> {
    let mut text = arguments.as_str();
    if text.len() > MAX_ARGUMENTS {
        return None;
    }
    for name in path {
        text = member(text, name)?;
    }
    if text.starts_with(['{', '[']) {
        return None;
    }
    match serde_json::from_str(text).ok()? {
        Value::String(text) => Some(text),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the text of one member of an object.
fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    struct MemberSearch<'n>(&'n str);

    impl<'de> Visitor<'de> for MemberSearch<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                if name == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object);
    let found = reader.deserialize_map(MemberSearch(name)).ok()?;
    found.map(RawValue::get)
}

/// Returns the headers of a call's arguments.
pub(super) fn param_headers(state: &ServerState, head: &ParamsHead) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let toolbox = state.toolbox.load();
    let params = head.name.as_deref().map(|name| toolbox.header_params(name));
    let (Some(params @ [_, ..]), Some(arguments)) = (params, &head.arguments) else {
        return headers;
    };
    for (path, header) in params {
        let name = HeaderName::try_from(format!("mcp-param-{header}")).ok();
        let value = argument_text(arguments, path);
        let value = value.and_then(|text| HeaderValue::try_from(encoded(&text)).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Returns the address of the same server to which a response redirects its request, such as the
/// one with a slash at its end.
pub(super) fn redirected(from: &Uri, status: StatusCode, headers: &HeaderMap) -> Option<Uri> {
    let keeps_body = [
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !keeps_body.contains(&status) {
        return None;
    }
    let to: Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    // MCP-6: credentials are meant for the server that the configuration names.
    let is_same = match to.authority() {
        Some(_) => (to.scheme(), to.authority()) == (from.scheme(), from.authority()),
        None => to.path().starts_with('/') && !to.path().starts_with("//"),
    };
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    let to = Uri::from_parts(parts).ok()?;
    (is_same && to != *from).then_some(to)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mcp_6_a_redirect_is_followed_on_the_same_server_and_to_no_other() {
        let from: Uri = "https://own.example/mcp".parse().unwrap();
        let to = |status: u16, place: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, place.parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            redirected(&from, status, &headers).map(|to| to.to_string())
        };
        let slash = Some("https://own.example/mcp/".to_owned());
        for place in ["/mcp/", "https://own.example/mcp/"] {
            assert_eq!(to(307, place), slash, "{place}");
            assert_eq!(to(308, place), slash, "{place}");
            // The next request would have no body.
            assert_eq!(to(303, place), None, "{place}");
        }
        for place in [
            "https://other.example/mcp/",
            "https://own.example:8443/mcp/",
            "http://own.example/mcp/",
            "//other.example/mcp/",
            "https://own.example/mcp",
            "mcp/",
        ] {
            assert_eq!(to(307, place), None, "{place}");
        }
    }

    #[test]
    fn mcp_5_m10_names_of_any_letters_go_into_headers() {
        assert_eq!(encoded("echo"), "echo");
        assert_eq!(encoded("é"), "=?base64?w6k=?=");
        assert!(encoded(" a").starts_with(PREFIX));
        assert!(encoded("=?base64?x?=").starts_with(PREFIX));
    }

    #[test]
    fn mcp_5_m10_marked_arguments_are_found_at_each_level() {
        let schema = json!({ "properties": { "region": { "x-mcp-header": "Region" },
            "in": { "properties": { "deep": { "x-mcp-header": "Deep" } } } } });
        let params = header_params(&schema);
        assert_eq!(params.len(), 2);
        let arguments = json!({ "region": "eu", "in": { "deep": 7 }, "all": [1] });
        let arguments = JsonText::of(&arguments);
        assert_eq!(argument_text(&arguments, &["all".to_owned()]), None);
        assert_eq!(argument_text(&arguments, &["in".to_owned()]), None);
        let texts: Vec<_> = params
            .iter()
            .filter_map(|(path, _)| argument_text(&arguments, path))
            .collect();
        assert!(texts.contains(&"eu".to_owned()) && texts.contains(&"7".to_owned()));
    }
}
