//! The first exchange with a server: its dialect, its description and its capabilities.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::audience::CallSide;
use super::connection::Connection;
use super::error::McpError;
use super::json_text::{JsonText, part_of};
use super::message::{ParamsHead, RawReply, code};
use super::request_meta::{self, CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION, SERVER_INFO};

/// Versions of the dialect with a handshake, the newest first.
pub(crate) const HANDSHAKE_VERSIONS: [&str; 4] =
    ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Version of the dialect whose requests are self-contained.
pub(crate) const SELF_CONTAINED_VERSION: &str = "2026-07-28";
/// Time for the answer to the first question, after which the older dialect is tried beside it.
const DISCOVERY: Duration = Duration::from_secs(5);
/// Maximum size of a description, in bytes.
const MAX_DESCRIPTION: usize = 1 << 20;

/// A dialect, by the handshake that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// It begins with `initialize`.
    Handshake { version: String },
    /// Each request says all that is needed.
    SelfContained { version: String },
}

/// The kind of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeKind {
    Initialize,
    Discover,
}

impl Dialect {
    pub(crate) fn version(&self) -> &str {
        match self {
            Self::Handshake { version } | Self::SelfContained { version } => version,
        }
    }

    pub(crate) fn is_self_contained(&self) -> bool {
        matches!(self, Self::SelfContained { .. })
    }

    pub(super) fn kind(&self) -> HandshakeKind {
        match self {
            Self::Handshake { .. } => HandshakeKind::Initialize,
            Self::SelfContained { .. } => HandshakeKind::Discover,
        }
    }
}

/// A server's description of itself.
#[derive(Debug, Clone)]
pub(crate) struct ServerDescription {
    pub(crate) dialect: Dialect,
    /// Its capabilities, as it told them.
    pub(crate) capabilities: Value,
    /// Its name and version, as it told them.
    pub(crate) server_info: Option<JsonText>,
    pub(crate) instructions: Option<JsonText>,
}

impl ServerDescription {
    /// Returns true if it has this capability.
    pub(crate) fn can(&self, capability: &str) -> bool {
        self.capabilities.get(capability).is_some_and(Value::is_object)
    }

    /// Returns true if a capability has this property.
    pub(crate) fn has(&self, capability: &str, property: &str) -> bool {
        self.capabilities[capability][property] == true
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptionFields<'a> {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Value,
    #[serde(borrow, default)]
    server_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

/// Performs the handshake. `known`: the one that worked last; `capabilities`: of the callers.
///
/// # Errors  The server speaks no supported dialect, or it ended. The caller sets the time limit.
pub(super) async fn perform(
    connection: &Arc<Connection>,
    known: Option<HandshakeKind>,
    capabilities: &Value,
) -> Result<ServerDescription, McpError> {
    match known {
        // MCP-3: the other handshake is tried within the same start.
        Some(HandshakeKind::Initialize) => match initialize(connection, capabilities).await {
            Err(error) if error.is_refused_method() => discover(connection).await,
            ended => ended,
        },
        Some(HandshakeKind::Discover) | None => either(connection, capabilities).await,
    }
}

/// Asks in the newer dialect first. A server that does not answer may be slow, or may know the
/// older one only: then both questions are open.
async fn either(
    connection: &Arc<Connection>,
    capabilities: &Value,
) -> Result<ServerDescription, McpError> {
    let mut discovering = Box::pin(discover(connection));
    match timeout(DISCOVERY, &mut discovering).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) if !error.is_refused_method() => return Err(error),
        Ok(Err(_)) => return initialize(connection, capabilities).await,
        Err(_) => {}
    }
    let mut initializing = Box::pin(initialize(connection, capabilities));
    tokio::select! {
        found = &mut discovering => match found {
            Ok(found) => Ok(found),
            Err(_) => initializing.await,
        },
        found = &mut initializing => match found {
            Err(error) if error.is_refused_method() => discovering.await,
            found => found,
        },
    }
}

async fn discover(connection: &Arc<Connection>) -> Result<ServerDescription, McpError> {
    let version = SELF_CONTAINED_VERSION;
    let meta = json!({ PROTOCOL_VERSION: version, CLIENT_INFO: request_meta::client_info(),
        CAPABILITIES: {} });
    let params = JsonText::of(&json!({ "_meta": meta }));
    let asked = connection.ask_plain("server/discover", Some(params), CallSide::default());
    let reply = asked.await?;
    let dialect = Dialect::SelfContained {
        version: version.to_owned(),
    };
    let (found, fields) = described(&reply, dialect)?;
    let versions = fields.supported_versions;
    if !versions.is_empty() && !versions.iter().any(|one| one == version) {
        // It knows other versions only, perhaps those with a handshake.
        let supported = versions.join(", ");
        return Err(McpError::server(
            code::UNSUPPORTED_VERSION,
            format!("it supports {supported}"),
        ));
    }
    Ok(found)
}

async fn initialize(
    connection: &Arc<Connection>,
    capabilities: &Value,
) -> Result<ServerDescription, McpError> {
    let [newest, ..] = HANDSHAKE_VERSIONS;
    let params = json!({ "protocolVersion": newest, "capabilities": capabilities,
        "clientInfo": request_meta::client_info() });
    let params = Some(JsonText::of(&params));
    let asked = connection.ask_plain("initialize", params, CallSide::default());
    let reply = asked.await?;
    let dialect = |version: Option<String>| Dialect::Handshake {
        version: version.unwrap_or_else(|| newest.to_owned()),
    };
    let (mut found, fields) = described(&reply, dialect(None))?;
    found.dialect = dialect(fields.protocol_version);
    connection.agree(found.dialect.clone());
    connection.notify("notifications/initialized", None).await?;
    Ok(found)
}

struct OwnedFields {
    protocol_version: Option<String>,
    supported_versions: Vec<String>,
}

fn described(
    reply: &RawReply,
    dialect: Dialect,
) -> Result<(ServerDescription, OwnedFields), McpError> {
    let text = reply.text.bytes();
    let fields: Option<DescriptionFields<'_>> = if text.len() <= MAX_DESCRIPTION {
        serde_json::from_slice(text).ok()
    } else {
        None
    };
    let fields = fields.filter(|_| reply.text.is_object()).ok_or_else(|| {
        McpError::protocol("its description of itself cannot be read")
    })?;
    let part = |raw: &RawValue| part_of(text, raw);
    let meta = fields.meta.map(part).and_then(|meta| request_meta::members(&meta));
    let in_meta = meta.and_then(|mut meta| meta.remove(SERVER_INFO));
    let description = ServerDescription {
        dialect,
        capabilities: fields.capabilities,
        server_info: fields.server_info.map(part).or(in_meta),
        instructions: fields.instructions.map(part),
    };
    let owned = OwnedFields {
        protocol_version: fields.protocol_version,
        supported_versions: fields.supported_versions,
    };
    Ok((description, owned))
}

/// Returns the name that a request gives to middle boxes.
pub(crate) fn routed_name(method: &str, head: &ParamsHead) -> Option<String> {
    match method {
        "tools/call" | "prompts/get" => head.name.clone(),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => head.uri.clone(),
        _ => None,
    }
}
