//! Listing of a server's tools: at its start, and when it says that they have changed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::audience::{CallSide, ServerNotice};
use super::connection::Connection;
use super::dialect::ServerDescription;
use super::error::McpError;
use super::json_text::{JsonText, part_of};
use super::message::LARGE;
use super::server_state::ServerState;
use super::tools::RawTool;
use crate::lock::LockExt as _;

/// Maximum number of pages of a list.
const MAX_PAGES: usize = 1000;
/// Maximum number of announcements that wait for one list; the oldest are dropped for more.
const MAX_ANNOUNCED: usize = 1000;
/// The message by which a server tells that its tools have changed.
const CHANGED: &str = "notifications/tools/list_changed";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolPage<'a> {
    /// Some languages write `null` for an empty list.
    #[serde(borrow, default)]
    tools: Option<Vec<&'a RawValue>>,
    /// Some servers count their pages: it goes back as it came.
    #[serde(default)]
    next_cursor: Option<Value>,
}

/// Reads one page: its tools, and the cursor of the next one.
fn read_page(text: &JsonText) -> Result<(Vec<RawTool>, Option<Value>), McpError> {
    let page: ToolPage<'_> = serde_json::from_slice(text.bytes())
        .map_err(|_| McpError::unusable("its list of tools cannot be read"))?;
    let tools = page.tools.into_iter().flatten();
    let tools = tools.filter_map(|raw| RawTool::read(part_of(text.bytes(), raw)));
    Ok((tools.collect(), page.next_cursor))
}

/// Lists all tools of a server, on all pages.
///
/// # Errors  The server does not list them, or they exceed its `max_line`.
pub(super) async fn list_all(connection: &Arc<Connection>) -> Result<Vec<RawTool>, McpError> {
    let mut listed = Vec::new();
    let mut size = 0;
    let mut cursor: Option<Value> = None;
    let mut seen = BTreeSet::new();
    for _ in 0..MAX_PAGES {
        let params = cursor.map(|cursor| JsonText::of(&json!({ "cursor": cursor })));
        let reply = connection
            .ask("tools/list", params, CallSide::default())
            .await?;
        let length = reply.text.bytes().len();
        size += length;
        let max_line = connection.state.settings.max_line;
        if size > max_line {
            return Err(McpError::too_long(max_line));
        }
        let (tools, next) = if length > LARGE {
            // MCP-2: the thread is shared with breakers and supervisors.
            let read = spawn_blocking(move || read_page(&reply.text)).await;
            read.unwrap_or_else(|_| Err(McpError::unusable("its list of tools was not read")))?
        } else {
            read_page(&reply.text)?
        };
        // The only page of most lists is not copied.
        match listed.is_empty() {
            true => listed = tools,
            false => listed.extend(tools),
        }
        // A cursor that comes again would list the same tools for ever.
        cursor = next.filter(|next| seen.insert(next.to_string()));
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
    // CALL-6: a server that announces without end is asked for one list at a time.
    if connection.listing.announce(notice) {
        let connection = Arc::clone(connection);
        drop(tokio::spawn(async move {
            while let Some(notices) = connection.listing.next() {
                match list_all(&connection).await {
                    Ok(listed) => learn(&connection.state, None, Some(listed)).await,
                    Err(error) => tracing::warn!(
                        %error,
                        "a server's tools have changed, and cannot be listed"
                    ),
                }
                for notice in notices {
                    connection.state.tell_audience(notice);
                }
            }
        }));
    }
}

/// The announced changes of a server's tools that its list is to follow.
#[derive(Default)]
pub(super) struct PendingList(Mutex<PendingState>);

#[derive(Default)]
struct PendingState {
    is_listing: bool,
    /// The last announcements since the present list was asked for.
    announced: VecDeque<ServerNotice>,
}

impl PendingList {
    /// Notes an announcement. Returns true if the tools are not being listed.
    fn announce(&self, notice: ServerNotice) -> bool {
        let mut state = self.0.acquire();
        if state.announced.len() == MAX_ANNOUNCED {
            state.announced.pop_front();
        }
        state.announced.push_back(notice);
        !std::mem::replace(&mut state.is_listing, true)
    }

    /// Returns the announcements after which the tools have to be listed; `None` ends the listing.
    fn next(&self) -> Option<VecDeque<ServerNotice>> {
        let mut state = self.0.acquire();
        state.is_listing = !state.announced.is_empty();
        let announced = std::mem::take(&mut state.announced);
        state.is_listing.then_some(announced)
    }
}

/// Stores the facts that were learned of a server, apart from this thread if its tools are many.
pub(super) async fn learn(
    state: &Arc<ServerState>,
    description: Option<Arc<ServerDescription>>,
    listed: Option<Vec<RawTool>>,
) {
    let tools = listed.iter().flatten();
    let size: usize = tools.map(|tool| tool.text.bytes().len()).sum();
    if size <= LARGE {
        return state.learn(description, listed);
    }
    // MCP-2: the thread is shared with breakers and supervisors.
    let state = Arc::clone(state);
    let learned = spawn_blocking(move || state.learn(description, listed)).await;
    if learned.is_err() {
        tracing::warn!("a server's tools could not be stored");
    }
}

/// Learns what a server may have said while it was not heard, and tells the callers. `was_away`: it
/// could not be reached.
pub(super) async fn catch_up(connection: &Arc<Connection>, was_away: bool) {
    let state = &connection.state;
    let description = state.description.load_full();
    let Some(description) = description.filter(|_| !connection.is_owned()) else {
        return;
    };
    if description.can("tools")
        && let Ok(listed) = list_all(connection).await
    {
        let present = Arc::clone(&state.toolbox.load().listed);
        if listed[..] != present[..] {
            learn(state, None, Some(listed)).await;
            state.tell_audience(ServerNotice::new(CHANGED, None));
        }
    }
    if was_away {
        tell_of_lists(connection, &["prompts", "resources"]);
    }
}

/// Tells the callers of a server in its next life that these lists may be others: as far as the
/// server tells of changes, since it told of none that came with its end.
pub(super) fn tell_of_lists(connection: &Connection, lists: &[&str]) {
    let Some(description) = connection.state.description.load_full() else {
        return;
    };
    for list in lists {
        if description.has(list, "listChanged") {
            let method = format!("notifications/{list}/list_changed");
            connection.tell_callers(ServerNotice::new(method, None));
        }
    }
}
