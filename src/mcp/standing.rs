//! The standing wishes of callers at a server: its log level, and the changes that they want to hear
//! of.
//!
//! MCP-5: one subscription at the server serves all callers, and each life of the server begins
//! with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use super::audience::{CallSide, StandingWishes};
use super::call_table::RequestOutcome;
use super::connection::Connection;
use super::dialect::ServerDescription;
use super::error::McpError;
use super::json_text::JsonText;
use super::liveness::ConnectionEnd;
use super::log_level::rank;
use super::message::{ParamsHead, RawReply};
use super::tool_list;

/// Maximum time for which a call waits until its server was told the level of its caller.
const LEVEL_WAIT: Duration = Duration::from_secs(1);
/// Maximum time for which a server may take to acknowledge a subscription.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(1);
/// Limits of the pause before a subscription that has ended is begun again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The request that begins a subscription.
pub(super) const SUBSCRIBE: &str = "resources/subscribe";

/// The wishes that a server of the older dialect was told by one connection.
#[derive(Debug, Default)]
pub(super) struct ToldWishes {
    /// Rank of its log level; `None` while it is not known, or changes.
    level: watch::Sender<Option<usize>>,
    /// The resources that it was asked to watch: true if it has agreed. Held while it is asked, so
    /// that it is asked once.
    resources: Mutex<BTreeMap<String, bool>>,
    /// Number of subscriptions that a server of the newer dialect has acknowledged.
    acknowledged: watch::Sender<u64>,
}

impl ToldWishes {
    /// Notes that the server has acknowledged a subscription.
    pub(super) fn acknowledge(&self) {
        self.acknowledged.send_modify(|number| *number += 1);
    }

    /// Waits until the server tells log messages of this level, for a bounded time.
    pub(super) async fn until_level(&self, wanted: Option<&str>) {
        let Some(wanted) = wanted.and_then(rank) else {
            return;
        };
        let mut level = self.level.subscribe();
        let is_told = |level: &Option<usize>| level.is_some_and(|level| level <= wanted);
        if timeout(LEVEL_WAIT, level.wait_for(is_told)).await.is_err() {
            // A server that does not answer delays one call, and not each.
            self.level.send_replace(Some(wanted));
        }
    }
}

/// Asks a server of the older dialect to watch a resource for a caller, unless it does so already.
///
/// MCP-5: some servers count. However often callers ask, one request ends the subscription.
pub(super) async fn subscribe(
    connection: &Arc<Connection>,
    params: Option<JsonText>,
    side: CallSide,
) -> RequestOutcome {
    let head = params.as_ref().and_then(ParamsHead::read);
    let Some(uri) = head.and_then(|head| head.uri) else {
        return connection.ask(SUBSCRIBE, params, side).await;
    };
    let mut told = connection.told.resources.lock().await;
    if told.get(&uri) == Some(&true) {
        let empty = JsonText::checked(Bytes::from_static(b"{}"));
        return Ok(RawReply::of(empty));
    }
    // If the caller leaves meanwhile, the server may watch it all the same.
    told.insert(uri.clone(), false);
    let outcome = connection.ask(SUBSCRIBE, params, side).await;
    match &outcome {
        Ok(_) => told.insert(uri, true),
        Err(_) => told.remove(&uri),
    };
    outcome
}

/// Keeps the wishes known to the server, as long as the connection lives.
pub(super) async fn keep(
    connection: Weak<Connection>,
    (description, mut wishes): (Arc<ServerDescription>, watch::Receiver<StandingWishes>),
) {
    let mut told_level = None;
    let mut gap = ListenGap::default();
    loop {
        let wanted = wishes.borrow_and_update().clone();
        let Some(connection) = connection.upgrade() else {
            return;
        };
        if description.dialect.is_self_contained() {
            let listening = listen(&connection, &description, (&wanted, &mut gap));
            tokio::select! {
                () = listening => {}
                changed = wishes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        } else {
            let level = wanted.level.as_deref();
            tell_level(&connection, &description, (level, &mut told_level)).await;
            tell_resources(&connection, &description, &wishes).await;
        }
        drop(connection);
        if wishes.changed().await.is_err() {
            return;
        }
    }
}

/// Sends a request of ours, of which the result does not matter. Returns false if it was refused.
async fn ask(connection: &Arc<Connection>, method: &str, params: Value) -> bool {
    let params = Some(JsonText::of(&params));
    let asked = connection.ask(method, params, CallSide::default()).await;
    if let Err(error) = &asked {
        tracing::debug!(%error, method, "a standing wish was not taken");
    }
    asked.is_ok()
}

/// Tells a server of the older dialect the lowest level that any caller wants, if it is another one
/// than before. Without a wish its level stays.
async fn tell_level(
    connection: &Arc<Connection>,
    description: &ServerDescription,
    (wanted, told): (Option<&str>, &mut Option<usize>),
) {
    if !description.can("logging") {
        // There is nothing to wait for.
        connection.told.level.send_replace(Some(0));
        return;
    }
    let wanted = wanted.and_then(|level| Some((level, rank(level)?)));
    let Some((level, rank)) = wanted.filter(|(_, rank)| *told != Some(*rank)) else {
        return;
    };
    connection.told.level.send_replace(None);
    ask(connection, "logging/setLevel", json!({ "level": level })).await;
    connection.told.level.send_replace(Some(rank));
    *told = Some(rank);
}

/// Subscribes and unsubscribes at a server of the older dialect.
async fn tell_resources(
    connection: &Arc<Connection>,
    description: &ServerDescription,
    wishes: &watch::Receiver<StandingWishes>,
) {
    if !description.has("resources", "subscribe") {
        return;
    }
    let mut told = connection.told.resources.lock().await;
    // They may have changed while a caller subscribed.
    let wanted = wishes.borrow().resources.clone();
    for uri in &wanted {
        if !told.contains_key(uri) {
            told.insert(uri.clone(), false);
            let has_agreed = ask(connection, SUBSCRIBE, json!({ "uri": uri })).await;
            told.insert(uri.clone(), has_agreed);
        }
    }
    let unwanted: Vec<String> = told
        .keys()
        .filter(|uri| !wanted.contains(*uri))
        .cloned()
        .collect();
    for uri in unwanted {
        let params = json!({ "uri": uri });
        ask(connection, "resources/unsubscribe", params).await;
        told.remove(&uri);
    }
}

/// The ends of subscriptions in a row.
#[derive(Debug, Default)]
struct ListenGap {
    ends: u32,
}

impl ListenGap {
    /// Returns the pause before the next subscription, after one that lasted so long.
    fn pause(&mut self, lasted: Duration) -> Duration {
        let (least, most) = AGAIN;
        self.ends = if lasted > most { 0 } else { self.ends + 1 };
        least.saturating_mul(1 << self.ends.min(5)).min(most)
    }
}

/// Hears the changes that a server of the newer dialect tells, until it says that it tells none.
async fn listen(
    connection: &Arc<Connection>,
    description: &ServerDescription,
    (wanted, gap): (&StandingWishes, &mut ListenGap),
) {
    let mut filter = serde_json::Map::new();
    for (capability, name) in [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ] {
        if description.has(capability, "listChanged") {
            filter.insert(name.to_owned(), Value::Bool(true));
        }
    }
    if !wanted.resources.is_empty() && description.has("resources", "subscribe") {
        let uris: Vec<&String> = wanted.resources.iter().collect();
        filter.insert("resourceSubscriptions".to_owned(), json!(uris));
    }
    if filter.is_empty() {
        return;
    }
    let params = JsonText::of(&json!({ "notifications": filter }));
    let mut is_again = false;
    while connection.liveness.end() == ConnectionEnd::None {
        let began = Instant::now();
        let side = CallSide::default();
        let mut acknowledged = connection.told.acknowledged.subscribe();
        let before = *acknowledged.borrow_and_update();
        let asking = connection.ask_long("subscriptions/listen", Some(params.clone()), side);
        let catching_up = async {
            if is_again {
                let begun = acknowledged.wait_for(|number| *number > before);
                // One that does not say so has begun all the same.
                drop(timeout(ACKNOWLEDGEMENT, begun).await);
                // MCP-5: what was said in between is not said again.
                tool_list::catch_up(connection, true).await;
            }
        };
        match tokio::join!(asking, catching_up) {
            (Err(error @ McpError::Server { .. }), ()) => {
                tracing::debug!(%error, "a server does not tell of its changes");
                return;
            }
            // Every other end may pass, such as that of a connection.
            (ended, ()) => tracing::debug!(is_orderly = ended.is_ok(), "a subscription has ended"),
        }
        sleep(gap.pause(began.elapsed())).await;
        is_again = true;
    }
}
