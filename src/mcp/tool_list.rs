//! Listing of a server's tools: at its start, and when it says that they have changed.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::audience::{CallSide, ServerNotice};
use super::connection::Connection;
use super::error::McpError;
use super::json_text::{JsonText, part_of};
use super::tools::RawTool;

/// Maximum number of pages of a list.
const MAX_PAGES: usize = 1000;
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolPage<'a> {
    #[serde(borrow, default)]
    tools: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct ToolName<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Lists all tools of a server, on all pages.
///
/// # Errors  The server does not list them, or they exceed its `max_line`.
pub(super) async fn list_all(connection: &Arc<Connection>) -> Result<Vec<RawTool>, McpError> {
    let mut listed = Vec::new();
    let mut size = 0;
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let params = cursor.map(|cursor| JsonText::of(&json!({ "cursor": cursor })));
        let reply = connection
            .ask("tools/list", params, CallSide::default())
            .await?;
        size += reply.text.bytes().len();
        let max_line = connection.state.settings.max_line;
        if size > max_line {
            return Err(McpError::too_long(max_line));
        }
        let page: ToolPage<'_> = serde_json::from_slice(reply.text.bytes())
            .map_err(|_| McpError::unusable("its list of tools cannot be read"))?;
        for raw in page.tools {
            // A tool without a name cannot be called.
            if let Ok(ToolName { name }) = serde_json::from_str(raw.get()) {
                listed.push(RawTool {
                    name: name.into_owned(),
                    text: part_of(reply.text.bytes(), raw),
                });
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(listed)
}

/// Lists the tools again, and tells the callers of the change after that.
pub(super) fn list_again(connection: &Arc<Connection>, notice: ServerNotice) {
    if connection.is_owned() {
        // Its tools may be those of its session alone.
        connection.tell_callers(notice);
        return;
    }
    let connection = Arc::clone(connection);
    drop(tokio::spawn(async move {
        match list_all(&connection).await {
            Ok(listed) => connection.state.learn(None, Some(listed)),
            Err(error) => tracing::warn!(
                %error,
                "a server's tools have changed, and cannot be listed"
            ),
        }
        connection.state.tell_audience(notice);
    }));
}
