//! The first exchange with a server: its dialect, its description and its capabilities.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::audience::CallSide;
use super::connection::Connection;
use super::dialect::{
    Dialect, HANDSHAKE_VERSIONS, HandshakeKind, SELF_CONTAINED_VERSION, ServerDescription,
};
use super::error::McpError;
use super::json_text::{JsonText, part_of};
use super::message::{LARGE, RawReply, code};
use super::request_meta::{self, CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION, SERVER_INFO};

/// Time for the answer to the first question, after which the older dialect is tried beside it.
const DISCOVERY: Duration = Duration::from_secs(5);
/// Maximum size of a description, in bytes.
const MAX_DESCRIPTION: usize = 1 << 20;

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
        Ok(Err(error)) if !may_be_older(&error) => return Err(error),
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
    // A server that answers each method with something speaks another dialect.
    let unusable = |_| McpError::unusable("its description of itself cannot be read");
    let (found, fields) = described(reply, dialect).await.map_err(unusable)?;
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

/// Returns true if a server that failed at the first question may know the older dialect. Some fail
/// at each method that they do not know.
fn may_be_older(error: &McpError) -> bool {
    error.is_refused_method() || matches!(error, McpError::Http { status: 500.., .. })
}

async fn initialize(
    connection: &Arc<Connection>,
    capabilities: &Value,
) -> Result<ServerDescription, McpError> {
    let [newest, ..] = HANDSHAKE_VERSIONS;
    match initialize_as(connection, capabilities, newest).await {
        Err(error) => match supported(&error) {
            Some(version) => initialize_as(connection, capabilities, version).await,
            None => Err(error),
        },
        found => found,
    }
}

/// Returns the newest version that is known here of those that a refusal names.
fn supported(error: &McpError) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Refusal {
        supported: Vec<String>,
    }
    let McpError::Server {
        code: code::INVALID_PARAMS,
        data: Some(data),
        ..
    } = error
    else {
        return None;
    };
    let Refusal { supported } = data.read()?;
    let mut known = HANDSHAKE_VERSIONS.into_iter();
    known.find(|known| supported.iter().any(|one| one == known))
}

async fn initialize_as(
    connection: &Arc<Connection>,
    capabilities: &Value,
    asked: &'static str,
) -> Result<ServerDescription, McpError> {
    let params = json!({ "protocolVersion": asked, "capabilities": capabilities,
        "clientInfo": request_meta::client_info() });
    let params = Some(JsonText::of(&params));
    let asking = connection.ask_plain("initialize", params, CallSide::default());
    let reply = asking.await?;
    let dialect = |version: Option<String>| Dialect::Handshake {
        version: version.unwrap_or_else(|| asked.to_owned()),
    };
    let (mut found, fields) = described(reply, dialect(None)).await?;
    found.dialect = dialect(fields.protocol_version);
    connection.agree(found.dialect.clone());
    connection.notify("notifications/initialized", None).await?;
    Ok(found)
}

struct OwnedFields {
    protocol_version: Option<String>,
    supported_versions: Vec<String>,
}

/// Reads a server's description of itself, apart from this thread if it is large.
async fn described(
    reply: RawReply,
    dialect: Dialect,
) -> Result<(ServerDescription, OwnedFields), McpError> {
    if reply.text.bytes().len() <= LARGE {
        return read_description(&reply, dialect);
    }
    // MCP-2: the thread is shared with breakers and supervisors.
    let reading = spawn_blocking(move || read_description(&reply, dialect));
    let unread = |_| Err(McpError::protocol("its description of itself was not read"));
    reading.await.unwrap_or_else(unread)
}

fn read_description(
    reply: &RawReply,
    dialect: Dialect,
) -> Result<(ServerDescription, OwnedFields), McpError> {
    let text = reply.text.bytes();
    let fields: Option<DescriptionFields<'_>> = if text.len() <= MAX_DESCRIPTION {
        serde_json::from_slice(text).ok()
    } else {
        None
    };
    let fields = fields
        .filter(|_| reply.text.is_object())
        .ok_or_else(|| McpError::protocol("its description of itself cannot be read"))?;
    let part = |raw: &RawValue| part_of(text, raw);
    let meta = fields
        .meta
        .map(part)
        .and_then(|meta| request_meta::members(&meta));
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
