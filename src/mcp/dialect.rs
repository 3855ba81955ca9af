//! The dialects of the protocol, and a server's description of itself.

use serde_json::Value;

use super::json_text::JsonText;
use super::message::ParamsHead;

/// Versions of the dialect with a handshake, the newest first.
pub(crate) const HANDSHAKE_VERSIONS: [&str; 4] =
    ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Version of the dialect with self-contained requests.
pub(crate) const SELF_CONTAINED_VERSION: &str = "2026-07-28";
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
        self.capabilities
            .get(capability)
            .is_some_and(Value::is_object)
    }

    /// Returns true if a capability has this property.
    pub(crate) fn has(&self, capability: &str, property: &str) -> bool {
        self.capabilities[capability][property] == true
    }
}

/// Returns the name that a request gives to middle boxes.
pub(crate) fn routed_name(method: &str, head: &ParamsHead) -> Option<String> {
    match method {
        "tools/call" | "prompts/get" => head.name.clone(),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => head.uri.clone(),
        _ => None,
    }
}
