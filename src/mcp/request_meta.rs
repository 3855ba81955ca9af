//! The metadata of requests on their way to a server.
//!
//! MCP-5: a caller's keys pass, those of one hop are ours.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::audience::CallSide;
use super::dialect::Dialect;
use super::error::McpError;
use super::json_text::{JsonText, MemberEdit, edited, part_of};
use super::message::ParamsHead;

pub(crate) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(crate) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
pub(crate) const PROGRESS_TOKEN: &str = "progressToken";
/// Keys that belong to one hop.
const ONE_HOP: [&str; 5] = [
    PROTOCOL_VERSION,
    CLIENT_INFO,
    CAPABILITIES,
    LOG_LEVEL,
    PROGRESS_TOKEN,
];
/// Maximum size of a request's metadata, in bytes.
const MAX_META: usize = 256 * 1024;

/// The members of a metadata object, by name.
pub(crate) type MetaMembers = BTreeMap<String, JsonText>;

/// Reads metadata; `None` if it is no object, or too large. A `null` is one without members.
pub(crate) fn members(meta: &JsonText) -> Option<MetaMembers> {
    if meta.as_str() == "null" {
        return Some(MetaMembers::new());
    }
    if !meta.is_object() || meta.bytes().len() > MAX_META {
        return None;
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(meta.bytes()).ok()?;
    let members = members.into_iter();
    Some(
        members
            .map(|(name, raw)| (name, part_of(meta.bytes(), raw)))
            .collect(),
    )
}

/// Writes metadata.
pub(crate) fn written(members: &MetaMembers) -> Bytes {
    let mut text = String::from("{");
    for (name, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(value.as_str());
    }
    text.push('}');
    Bytes::from(text)
}

/// The description of this client.
pub(super) fn client_info() -> Value {
    json!({ "name": "breakerbox", "version": env!("CARGO_PKG_VERSION") })
}

/// Parameters as they go out, with the caller's progress token.
pub(super) struct OutgoingParams {
    pub(super) pieces: Option<Vec<Bytes>>,
    pub(super) head: ParamsHead,
    pub(super) token: Option<JsonText>,
}

/// Returns the parameters of a request to a server of this dialect. `id`: of the request.
///
/// # Errors  The parameters are no object, or their metadata is not.
pub(super) fn outgoing(
    dialect: Option<&Dialect>,
    params: Option<&JsonText>,
    id: u64,
    side: &CallSide,
) -> Result<OutgoingParams, McpError> {
    let invalid = |what: &str| McpError::InvalidRequest {
        reason: what.to_owned(),
    };
    let head = match params {
        Some(params) => ParamsHead::read(params)
            .ok_or_else(|| invalid("its params name a member twice; once is allowed"))?,
        None => ParamsHead::default(),
    };
    let Some(dialect) = dialect else {
        let pieces = params.map(|params| vec![params.bytes().clone()]);
        return Ok(OutgoingParams {
            pieces,
            head,
            token: None,
        });
    };
    let mut meta = match &head.meta {
        // Some callers write `null` for none.
        Some(meta) if meta.as_str() == "null" => MetaMembers::new(),
        Some(meta) => {
            members(meta).ok_or_else(|| invalid("its _meta is no object of at most 256 KiB"))?
        }
        None => MetaMembers::new(),
    };
    let own: BTreeMap<&str, JsonText> = ONE_HOP
        .iter()
        .filter_map(|name| Some((*name, meta.remove(*name)?)))
        .collect();
    let token = own.get(PROGRESS_TOKEN).cloned();
    if token.is_some() {
        meta.insert(PROGRESS_TOKEN.to_owned(), JsonText::of(&Value::from(id)));
    }
    if let Dialect::SelfContained { version } = dialect {
        let mut add = |name: &str, value| meta.insert(name.to_owned(), value);
        add(
            PROTOCOL_VERSION,
            JsonText::of(&Value::from(version.as_str())),
        );
        add(CLIENT_INFO, JsonText::of(&client_info()));
        let capabilities = own.get(CAPABILITIES).or(side.capabilities.as_ref());
        let none = || JsonText::of(&json!({}));
        add(CAPABILITIES, capabilities.cloned().unwrap_or_else(none));
        // MCP-5: the newer dialect has no other way for the level of a session.
        let of_session = side.level.map(|level| JsonText::of(&Value::from(level)));
        if let Some(level) = own.get(LOG_LEVEL).cloned().or(of_session) {
            add(LOG_LEVEL, level);
        }
    }
    let empty = JsonText::checked(Bytes::from_static(b"{}"));
    let pieces = match (params, &head.meta) {
        (params, None) if meta.is_empty() => params.map(|params| vec![params.bytes().clone()]),
        (params, present) => {
            let edit = MemberEdit {
                name: "_meta",
                present: present.as_ref(),
                value: written(&meta),
            };
            Some(edited(params.unwrap_or(&empty), vec![edit]))
        }
    };
    Ok(OutgoingParams {
        pieces,
        head,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::super::json_text::joined;
    use super::*;

    fn sent(dialect: &Dialect, params: &Value) -> (Value, Option<JsonText>) {
        let params = JsonText::of(params);
        let sent = outgoing(Some(dialect), Some(&params), 7, &CallSide::default()).unwrap();
        let text = joined(&sent.pieces.unwrap());
        (serde_json::from_slice(&text).unwrap(), sent.token)
    }

    #[test]
    fn mcp_5_m10_keys_of_a_caller_pass_and_those_of_a_hop_do_not() {
        let meta = json!({ "own/key": "k", "traceparent": "00-1", "progressToken": "t",
            PROTOCOL_VERSION: "x", CAPABILITIES: { "roots": {} }, LOG_LEVEL: "info" });
        let asked = json!({ "name": "a", "_meta": meta, "arguments": { "_meta": 1 } });
        let old = Dialect::Handshake {
            version: "2025-11-25".to_owned(),
        };
        let (got, token) = sent(&old, &asked);
        assert_eq!(token.unwrap().as_str(), "\"t\"");
        let expected = json!({ "own/key": "k", "traceparent": "00-1", "progressToken": 7 });
        assert_eq!(got["_meta"], expected);
        assert_eq!(got["arguments"], asked["arguments"]);
        let new = Dialect::SelfContained {
            version: "2026-07-28".to_owned(),
        };
        let (got, _) = sent(&new, &asked);
        assert_eq!(got["_meta"][PROTOCOL_VERSION], "2026-07-28");
        assert_eq!(got["_meta"][CAPABILITIES], json!({ "roots": {} }));
        assert_eq!(got["_meta"][LOG_LEVEL], "info");
        assert_eq!(got["_meta"][CLIENT_INFO]["name"], "breakerbox");
        let (got, _) = sent(&new, &json!({ "name": "a", "_meta": null }));
        assert_eq!(got["_meta"][PROTOCOL_VERSION], "2026-07-28");
        let (got, token) = sent(&old, &json!({ "name": "a" }));
        assert_eq!((got, token), (json!({ "name": "a" }), None));
    }

    #[test]
    fn mcp_5_metadata_that_is_null_is_replaced_and_not_doubled() {
        let params = JsonText::checked(Bytes::from_static(b"{\"a\":1,\"_meta\":null}"));
        let head = ParamsHead::read(&params).unwrap();
        assert_eq!(
            members(head.meta.as_ref().unwrap()),
            Some(MetaMembers::new())
        );
        let edit = MemberEdit {
            name: "_meta",
            present: head.meta.as_ref(),
            value: Bytes::from_static(b"{}"),
        };
        let changed = joined(&edited(&params, vec![edit]));
        assert_eq!(&changed[..], b"{\"a\":1,\"_meta\":{}}");
    }
}
