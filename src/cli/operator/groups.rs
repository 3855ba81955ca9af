//! Groups of MCP servers, for operators.

use std::io::{self, Write};

use breakerbox_actors::printable_json;
use serde_json::Value;

use super::client::RemoteAdmin;
use super::{Status, table};

/// Shows the groups of MCP servers below all dependencies. They are not in the JSON of these.
pub(super) async fn show_all(
    status: &Status,
    remote: &RemoteAdmin,
    out: &mut dyn Write,
) -> io::Result<()> {
    if status.json || status.name.is_some() {
        return Ok(());
    }
    // A server of an earlier version has none to tell of.
    match remote.get(&["api", "groups"]).await {
        Ok(Value::Array(groups)) if !groups.is_empty() => {
            writeln!(out)?;
            table::groups(&groups, out)
        }
        _ => Ok(()),
    }
}

/// Returns the group that is asked for by its name, if there is one.
pub(super) async fn find(status: &Status, remote: &RemoteAdmin) -> Option<Value> {
    let name = status.name.as_deref()?;
    let groups = remote.get(&["api", "groups"]).await.ok()?;
    let mut groups = groups.as_array()?.iter();
    groups.find(|group| group["name"] == name).cloned()
}

/// Shows one group.
pub(super) fn show_one(status: &Status, group: &Value, out: &mut dyn Write) -> io::Result<()> {
    if status.json {
        return writeln!(out, "{}", printable_json(&format!("{group:#}")));
    }
    table::groups(std::slice::from_ref(group), out)
}
