//! Description of a group: the capabilities of all its members together.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::GroupMember;
use crate::mcp::JsonText;
use crate::mcp::dialect::{HANDSHAKE_VERSIONS, SELF_CONTAINED_VERSION, ServerDescription};
use crate::mcp::request_meta::SERVER_INFO;

/// The members' descriptions of themselves; `None` for one that was not reached yet.
pub(super) type MemberDescriptions<'a> = Vec<(&'a GroupMember, Option<Arc<ServerDescription>>)>;

/// Capabilities with lists that may change.
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// Returns the result of `initialize`. `asked`: the version that the caller asks for; `name`: of the
/// group.
pub(super) fn initialized(
    members: &MemberDescriptions<'_>,
    asked: Option<&str>,
    name: &str,
) -> String {
    let [newest, ..] = HANDSHAKE_VERSIONS;
    let known = asked.filter(|asked| HANDSHAKE_VERSIONS.contains(asked));
    let mut result = json!({ "protocolVersion": known.unwrap_or(newest),
        "capabilities": capabilities(members, true), "serverInfo": info(name) });
    add_instructions(&mut result, members);
    result.to_string()
}

/// Returns the result of `server/discover`.
pub(super) fn discovered(members: &MemberDescriptions<'_>, name: &str) -> String {
    let mut result = json!({ "supportedVersions": [SELF_CONTAINED_VERSION],
        "capabilities": capabilities(members, false), "_meta": { SERVER_INFO: info(name) } });
    add_instructions(&mut result, members);
    result.to_string()
}

fn info(name: &str) -> Value {
    json!({ "name": name, "version": env!("CARGO_PKG_VERSION") })
}

/// Returns the capabilities. `has_sessions`: the caller can hear of changes.
fn capabilities(members: &MemberDescriptions<'_>, has_sessions: bool) -> Value {
    let is_any = |is_so: &dyn Fn(&ServerDescription) -> bool| {
        // MCP-1: a capability may be there before it is known.
        let mut members = members.iter();
        members.any(|(_, known)| known.as_deref().is_none_or(is_so))
    };
    let mut capabilities = json!({ "tools": {} });
    for name in ["prompts", "resources", "completions"] {
        if is_any(&|known| known.can(name)) {
            capabilities[name] = json!({});
        }
    }
    if !has_sessions {
        return capabilities;
    }
    for list in LISTS {
        if is_any(&|known| known.has(list, "listChanged")) {
            capabilities[list]["listChanged"] = Value::Bool(true);
        }
    }
    if is_any(&|known| known.has("resources", "subscribe")) {
        capabilities["resources"]["subscribe"] = Value::Bool(true);
    }
    if is_any(&|known| known.can("logging")) {
        capabilities["logging"] = json!({});
    }
    capabilities
}

fn add_instructions(result: &mut Value, members: &MemberDescriptions<'_>) {
    let own = members.iter().filter_map(|(member, known)| {
        let own = known.as_ref()?.instructions.as_ref()?;
        let own: String = JsonText::read(own)?;
        Some(format!("{}_*: {own}", member.prefix))
    });
    let instructions = own.collect::<Vec<_>>().join("\n\n");
    if !instructions.is_empty() {
        result["instructions"] = Value::from(instructions);
    }
}
