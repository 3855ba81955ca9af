//! Simulated dependencies: real HTTP servers on loopback, with a switch for faults.
//!
//! They know nothing of breakers and workers. The demo sets their faults; `serve` starts those that
//! the configuration names. Any client can set a fault, too:
//! `PUT /fault?is=none|fails|hangs|garbles`, and `&for=1m` to clear it after a minute.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use axum::serve::ListenerExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::lock::LockExt as _;

/// Fault of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimulatedFault {
    /// It works.
    None,
    /// It responds with 500.
    Fails,
    /// It accepts requests and never responds.
    Hangs,
    /// Every second response lacks its results.
    Garbles,
}

impl fmt::Display for SimulatedFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "works again",
            Self::Fails => "responds with 500 from now on",
            Self::Hangs => "hangs from now on: it accepts requests and never responds",
            Self::Garbles => "garbles every second response from now on",
        })
    }
}

/// The dependencies of config/default.toml: name, and key of the results in a response.
pub const SITES: [(&str, &str); 3] = [
    ("vector_search", "neighbors"),
    ("web_search", "results"),
    ("knowledge_graph", "nodes"),
];

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Site {
    /// The name of the dependency that it stands for.
    pub name: String,
    /// The address on which it listens.
    pub address: SocketAddr,
    shared: Arc<SiteState>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct SiteState {
    /// Key of the results in its responses.
    key: String,
    fault: Mutex<ActiveFault>,
    answers: AtomicU64,
}

/// The current fault and its end.
#[derive(Debug, Clone, Copy)]
struct ActiveFault {
    fault: SimulatedFault,
    until: Option<Instant>,
}

impl SiteState {
    fn set(&self, broken: ActiveFault) {
        *self.fault.acquire() = broken;
    }

    fn fault(&self) -> SimulatedFault {
        let broken = *self.fault.acquire();
        let over = broken.until.is_some_and(|until| Instant::now() >= until);
        if over {
            SimulatedFault::None
        } else {
            broken.fault
        }
    }
}

impl Site {
    /// Starts a server on a port that the system picks.
    pub async fn start(name: &str, key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(SiteState {
            key: key.to_owned(),
            fault: Mutex::new(ActiveFault {
                fault: SimulatedFault::None,
                until: None,
            }),
            answers: AtomicU64::new(0),
        });
        let listener = listener.tap_io(|stream| {
            // Without it, small responses may be delayed; it is an optimisation only.
            let _ = stream.set_nodelay(true);
        });
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It runs until it is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            name: name.to_owned(),
            address,
            shared,
            server,
        })
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets or clears the fault.
    pub fn set(&self, fault: SimulatedFault) {
        self.shared.set(ActiveFault { fault, until: None });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Query of a request that sets the fault: the fault and its duration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultQuery {
    is: SimulatedFault,
    #[serde(rename = "for")]
    for_: Option<String>,
}

impl FaultQuery {
    fn broken(&self) -> Result<ActiveFault, String> {
        let given = self.for_.as_deref().map(crate::config::parse_duration);
        let span = given.transpose();
        let span = span.map_err(|error| format!("for: {error}, allowed: such as 30s or 1m\n"))?;
        // An end beyond the range of the clock counts as none.
        let until = span.and_then(|span| Instant::now().checked_add(span));
        Ok(ActiveFault {
            fault: self.is,
            until,
        })
    }
}

fn switch(site: &SiteState, uri: &Uri) -> Response {
    let asked = Query::<FaultQuery>::try_from_uri(uri).map_err(|error| format!("{error}\n"));
    match asked.and_then(|Query(switch)| Ok((switch.broken()?, switch))) {
        Ok((broken, switch)) => {
            site.set(broken);
            // The caller's own words of the span: they have been read.
            let span = broken.until.and(switch.for_.as_deref());
            let span = span.map_or_else(String::new, |span| format!(", for {span}"));
            format!("it {}{span}\n", broken.fault).into_response()
        }
        Err(text) => (StatusCode::BAD_REQUEST, text).into_response(),
    }
}

async fn answer(State(site): State<Arc<SiteState>>, method: Method, uri: Uri) -> Response {
    if method == Method::PUT && uri.path() == "/fault" {
        return switch(&site, &uri);
    }
    let number = site.answers.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2 + number % 7)).await;
    let fault = site.fault();
    if fault == SimulatedFault::Fails {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if fault == SimulatedFault::Hangs {
        std::future::pending::<()>().await;
    }
    if fault == SimulatedFault::Garbles && number.is_multiple_of(2) {
        return Json(json!({ "note": "out of memory" })).into_response();
    }
    let topic = uri.path().trim_start_matches('/');
    let found: Vec<String> = (1..=3).map(|rank| format!("{topic} #{rank}")).collect();
    let mut body = serde_json::Map::new();
    body.insert(site.key.clone(), Value::from(found));
    Json(body).into_response()
}
