//! The standing wishes of callers at a server: its log level, and the changes that they want to hear
//! of.
//!
//! MCP-5: one subscription at the server serves all callers, and each life of the server begins
//! with it.

use std::sync::{Arc, Weak};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::audience::{CallSide, StandingWishes};
use super::connection::Connection;
use super::dialect::ServerDescription;
use super::json_text::JsonText;

/// Keeps the wishes known to the server, as long as the connection lives.
pub(super) async fn keep(
    connection: Weak<Connection>,
    (description, mut wishes): (Arc<ServerDescription>, watch::Receiver<StandingWishes>),
) {
    let mut told = StandingWishes::default();
    loop {
        let wanted = wishes.borrow_and_update().clone();
        let Some(connection) = connection.upgrade() else {
            return;
        };
        if description.dialect.is_self_contained() {
            let listening = listen(&connection, &description, &wanted);
            tokio::select! {
                () = listening => {}
                changed = wishes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        } else {
            tell(&connection, &description, (&told, &wanted)).await;
            told = wanted;
        }
        drop(connection);
        if wishes.changed().await.is_err() {
            return;
        }
    }
}

/// Tells a server of the older dialect what has changed.
async fn tell(
    connection: &Arc<Connection>,
    description: &ServerDescription,
    (told, wanted): (&StandingWishes, &StandingWishes),
) {
    let ask = async |method: &str, params: Value| {
        let params = Some(JsonText::of(&params));
        if let Err(error) = connection.ask(method, params, CallSide::default()).await {
            tracing::debug!(%error, method, "a standing wish was not taken");
        }
    };
    if let (Some(level), true) = (&wanted.level, description.can("logging"))
        && wanted.level != told.level
    {
        ask("logging/setLevel", json!({ "level": level })).await;
    }
    if !description.has("resources", "subscribe") {
        return;
    }
    for uri in wanted.resources.difference(&told.resources) {
        ask("resources/subscribe", json!({ "uri": uri })).await;
    }
    for uri in told.resources.difference(&wanted.resources) {
        ask("resources/unsubscribe", json!({ "uri": uri })).await;
    }
}

/// Hears the changes that a server of the newer dialect tells, for as long as it does.
async fn listen(
    connection: &Arc<Connection>,
    description: &ServerDescription,
    wanted: &StandingWishes,
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
    let method = "subscriptions/listen";
    let asked = connection.ask_long(method, Some(params), CallSide::default());
    if let Err(error) = asked.await {
        tracing::debug!(%error, "a server does not tell of its changes");
    }
}
