//! Groups of MCP servers, and pools, for operators.

use std::io::{self, Write};

use breakerbox_actors::printable_json;
use serde_json::Value;

use super::client::RemoteAdmin;
use super::{Status, table};

/// Shows the groups of MCP servers and the pools below all dependencies. They are not in the JSON of
/// these.
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
            table::groups(&groups, out)?;
        }
        _ => {}
    }
    match pools(remote).await {
        Some(pools) if !pools.is_empty() => {
            writeln!(out)?;
            table::pools(&pools, out)
        }
        _ => Ok(()),
    }
}

async fn pools(remote: &RemoteAdmin) -> Option<Vec<Value>> {
    let models = remote.get(&["api", "models"]).await.ok()?;
    models["pools"].as_array().cloned()
}

/// Returns the group or the pool that is asked for by its name, if there is one.
pub(super) async fn find(status: &Status, remote: &RemoteAdmin) -> Option<Value> {
    let name = status.name.as_deref()?;
    let groups = remote.get(&["api", "groups"]).await.ok();
    let groups = groups.and_then(|groups| groups.as_array().cloned());
    let named = |all: Vec<Value>| all.into_iter().find(|one| one["name"] == name);
    match groups.and_then(named) {
        Some(group) => Some(group),
        None => named(pools(remote).await?),
    }
}

/// Shows one group or pool.
pub(super) fn show_one(status: &Status, group: &Value, out: &mut dyn Write) -> io::Result<()> {
    if status.json {
        return writeln!(out, "{}", printable_json(&format!("{group:#}")));
    }
    match group["next"].is_null() && group["sessions"].is_number() {
        true => table::groups(std::slice::from_ref(group), out),
        false => table::pools(std::slice::from_ref(group), out),
    }
}
