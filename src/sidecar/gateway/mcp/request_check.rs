//! The dialect of a caller's request, and the rules that its head must meet.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;

use super::raw_object::RawObject;
use crate::mcp::dialect::{HANDSHAKE_VERSIONS, SELF_CONTAINED_VERSION, routed_name};
use crate::mcp::http_headers::{argument_text, decoded};
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{ParamsHead, RpcError, code};
use crate::mcp::request_meta::{self, CAPABILITIES, LOG_LEVEL, MetaMembers, PROTOCOL_VERSION};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(super) const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The dialect that a caller speaks.
#[derive(Debug)]
pub(super) enum CallerDialect {
    /// The one with a handshake.
    Older,
    /// The one with self-contained requests.
    Newer {
        /// Level of the log messages that the caller wants.
        level: Option<String>,
        /// Its capabilities.
        capabilities: JsonText,
    },
}

/// Refuses the cursor of a list that has one page: it was never given to a caller.
pub(super) fn refuse_cursor(params: Option<&JsonText>) -> Result<(), RpcError> {
    let cursor = params.and_then(|params| RawObject::read(params.as_str())?.string("cursor"));
    match cursor {
        None => Ok(()),
        Some(_) => {
            let text = "the cursor is not known: the list has one page";
            Err(RpcError::new(code::INVALID_PARAMS, text))
        }
    }
}

/// The reason why a request goes no further, and its status.
pub(super) type CheckFailure = (StatusCode, RpcError);

/// The kinds of content that a caller takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AcceptedMedia {
    pub(super) json: bool,
    pub(super) events: bool,
}

/// Reads what a caller takes. Without the header it takes all.
pub(super) fn accepted(headers: &HeaderMap) -> AcceptedMedia {
    let mut media = AcceptedMedia {
        json: false,
        events: false,
    };
    if !headers.contains_key(ACCEPT) {
        return AcceptedMedia {
            json: true,
            events: true,
        };
    }
    let lines = headers.get_all(ACCEPT).iter();
    let lines = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    for entry in lines {
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| {
            let weight = part
                .strip_prefix("q=")
                .and_then(|text| text.parse::<f32>().ok());
            weight == Some(0.0)
        });
        if is_refused {
            continue;
        }
        media.json |= ["application/json", "application/*", "*/*"].contains(&&*range);
        media.events |= ["text/event-stream", "text/*", "*/*"].contains(&&*range);
    }
    media
}

/// Returns the text of a header that may be there once.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, String> {
    let mut lines = headers.get_all(&name).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(format!("the header {name} is there twice; once is allowed"));
    }
    let text = line.to_str();
    text.map(Some)
        .map_err(|_| format!("the header {name} is no text"))
}

fn mismatch(text: impl Into<String>) -> CheckFailure {
    let error = RpcError::new(code::HEADER_MISMATCH, text);
    (StatusCode::BAD_REQUEST, error)
}

/// Checks the version that a message without parameters of its own is for.
///
/// # Errors  The version is none that is spoken here.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), CheckFailure> {
    let told = single(headers, VERSION).map_err(mismatch)?;
    let is_known = told
        .is_none_or(|told| told == SELF_CONTAINED_VERSION || HANDSHAKE_VERSIONS.contains(&told));
    if is_known {
        return Ok(());
    }
    Err(unsupported(told.unwrap_or_default()))
}

fn unsupported(told: &str) -> CheckFailure {
    let told: String = told.chars().take(64).collect();
    let data = json!({ "supported": [SELF_CONTAINED_VERSION], "requested": told });
    let text = format!("unsupported protocol version; {SELF_CONTAINED_VERSION} is supported");
    let error = RpcError::new(code::UNSUPPORTED_VERSION, text).with_data(&data);
    (StatusCode::BAD_REQUEST, error)
}

/// Finds the dialect of a request, and checks its head against its content.
///
/// # Errors  They contradict each other, or something is missing.
pub(super) fn check_request(
    headers: &HeaderMap,
    method: &str,
    params: &ParamsHead,
) -> Result<CallerDialect, CheckFailure> {
    let told = single(headers, VERSION).map_err(mismatch)?;
    let meta = params.meta.as_ref();
    let members = match meta.filter(|meta| meta.as_str() != "null") {
        Some(meta) => request_meta::members(meta).ok_or_else(|| {
            let text = "_meta is no object of at most 256 KiB";
            (
                StatusCode::BAD_REQUEST,
                RpcError::new(code::INVALID_PARAMS, text),
            )
        })?,
        None => MetaMembers::new(),
    };
    let in_meta: Option<String> = members.get(PROTOCOL_VERSION).and_then(JsonText::read);
    let is_newer = in_meta.is_some()
        || method == "server/discover"
        || (method != "initialize" && told.is_some_and(|told| told >= SELF_CONTAINED_VERSION));
    if !is_newer {
        // `initialize` names the version itself.
        if method != "initialize" {
            let is_known = told.is_none_or(|told| HANDSHAKE_VERSIONS.contains(&told));
            if !is_known {
                return Err(unsupported(told.unwrap_or_default()));
            }
        }
        return Ok(CallerDialect::Older);
    }
    check_newer(headers, (method, params), (told, in_meta), &members)
}

fn check_newer(
    headers: &HeaderMap,
    (method, params): (&str, &ParamsHead),
    (told, in_meta): (Option<&str>, Option<String>),
    members: &MetaMembers,
) -> Result<CallerDialect, CheckFailure> {
    let capabilities = members.get(CAPABILITIES).filter(|text| text.is_object());
    let (Some(in_meta), Some(capabilities)) = (in_meta, capabilities) else {
        let text = format!("_meta needs {PROTOCOL_VERSION}, a text, and {CAPABILITIES}, an object");
        let error = RpcError::new(code::INVALID_PARAMS, text);
        return Err((StatusCode::BAD_REQUEST, error));
    };
    match told {
        None => return Err(mismatch("the header mcp-protocol-version is missing")),
        Some(told) if told != in_meta => {
            let text = "the header mcp-protocol-version and _meta name different versions";
            return Err(mismatch(text));
        }
        Some(SELF_CONTAINED_VERSION) => {}
        Some(told) => return Err(unsupported(told)),
    }
    match single(headers, METHOD).map_err(mismatch)? {
        Some(told) if told == method => {}
        Some(_) => return Err(mismatch("the header mcp-method names another method")),
        None => return Err(mismatch("the header mcp-method is missing")),
    }
    if let Some(name) = routed_name(method, params) {
        let told = single(headers, NAME).map_err(mismatch)?;
        match told.map(decoded) {
            Some(Some(told)) if told == name => {}
            Some(Some(_)) => return Err(mismatch("the header mcp-name names something else")),
            Some(None) => return Err(mismatch("the header mcp-name is not encoded correctly")),
            None => return Err(mismatch("the header mcp-name is missing")),
        }
    }
    let level = members.get(LOG_LEVEL).and_then(JsonText::read::<String>);
    Ok(CallerDialect::Newer {
        level,
        capabilities: capabilities.clone(),
    })
}

/// Checks the headers that repeat arguments of a call. `marked`: the paths of these arguments, and
/// the last parts of their headers.
///
/// # Errors  A header and its argument differ.
pub(super) fn check_params(
    headers: &HeaderMap,
    marked: &[crate::mcp::http_headers::HeaderParam],
    arguments: Option<&JsonText>,
) -> Result<(), CheckFailure> {
    for (path, header) in marked {
        let Ok(name) = HeaderName::try_from(format!("mcp-param-{header}")) else {
            continue;
        };
        let shown = name.clone();
        let told = single(headers, name).map_err(mismatch)?;
        let own = arguments.and_then(|own| argument_text(own, path));
        let is_same = match (told, &own) {
            (None, None) => true,
            (Some(told), Some(own)) => decoded(told).as_ref() == Some(own),
            _ => false,
        };
        if !is_same {
            return Err(mismatch(format!(
                "the header {shown} and its argument differ"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::Value;

    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn checked(lines: &[(&'static str, &'static str)], method: &str, params: &Value) -> i64 {
        let head = ParamsHead::read(&JsonText::of(params)).unwrap();
        match check_request(&map(lines), method, &head) {
            Ok(CallerDialect::Older) => 1,
            Ok(CallerDialect::Newer { .. }) => 2,
            Err((status, error)) => {
                assert_eq!(status, StatusCode::BAD_REQUEST);
                error.code
            }
        }
    }

    #[test]
    fn mcp_5_m12_a_request_is_checked_by_the_rules_of_its_dialect() {
        let version = ("mcp-protocol-version", "2026-07-28");
        let list = ("mcp-method", "tools/list");
        let meta = json!({ "_meta": { PROTOCOL_VERSION: "2026-07-28", CAPABILITIES: {} } });
        assert_eq!(checked(&[], "tools/list", &json!({})), 1);
        let old = ("mcp-protocol-version", "2025-06-18");
        assert_eq!(checked(&[old], "tools/list", &json!({})), 1);
        assert_eq!(checked(&[version, list], "tools/list", &meta), 2);
        assert_eq!(
            checked(&[version], "tools/list", &meta),
            code::HEADER_MISMATCH
        );
        assert_eq!(checked(&[list], "tools/list", &meta), code::HEADER_MISMATCH);
        assert_eq!(
            checked(&[old, list], "tools/list", &meta),
            code::HEADER_MISMATCH
        );
        let odd = ("mcp-protocol-version", "1.0");
        assert_eq!(
            checked(&[odd], "tools/list", &json!({})),
            code::UNSUPPORTED_VERSION
        );
        assert_eq!(
            checked(&[], "server/discover", &json!({})),
            code::INVALID_PARAMS
        );
        assert_eq!(
            checked(&[version], "tools/list", &json!({})),
            code::INVALID_PARAMS
        );
        assert_eq!(checked(&[version], "initialize", &json!({})), 1);
        let call = ("mcp-method", "tools/call");
        let mut named = meta;
        named["name"] = json!("a");
        let other = ("mcp-name", "b");
        let same = ("mcp-name", "a");
        assert_eq!(checked(&[version, call, same], "tools/call", &named), 2);
        for lines in [
            vec![version, call, other],
            vec![version, call],
            vec![version, call, same, same],
        ] {
            assert_eq!(checked(&lines, "tools/call", &named), code::HEADER_MISMATCH);
        }
    }

    #[test]
    fn mcp_5_m12_what_a_caller_takes_is_read_from_its_head() {
        let both = AcceptedMedia {
            json: true,
            events: true,
        };
        assert_eq!(accepted(&map(&[])), both);
        assert_eq!(accepted(&map(&[("accept", "*/*")])), both);
        let listed = map(&[("accept", "application/json, text/event-stream;q=0.5")]);
        assert_eq!(accepted(&listed), both);
        let one = accepted(&map(&[(
            "accept",
            "application/json, text/event-stream;q=0",
        )]));
        assert!(one.json && !one.events);
        let none = accepted(&map(&[("accept", "text/html")]));
        assert!(!none.json && !none.events);
    }
}
