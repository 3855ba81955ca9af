//! The admin side over real sockets: its views, its changes, and its isolation from calls.
//!
//! Time is real because the server is real; tests wait for conditions, never for a span of time.

mod alerts;
mod api;
mod changes;
mod commands;
mod connections;
mod consumers;
mod dashboard;
mod disturbance;
#[cfg(all(feature = "fleet", feature = "testing"))]
mod fleet_orders;
mod guard;
mod history;
mod log;
mod metrics;
mod mounted;
mod operators;
mod outages;
mod readiness;
mod secrets;
mod stream;
#[cfg(unix)]
mod terminal;

use std::net::TcpListener;
use std::time::Duration;

use breakerbox::admin::{Admin, Phase, Server, ServerLimits};
use breakerbox::config::Settings;
use breakerbox::{Clock, FallbackRule, RuntimeSettings};
use breakerbox_actors::testing::TestRuntime;
use breakerbox_policy::DependencySettings;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::scripted::{Bench, Dep};

pub(crate) const TOKEN: &str = "a token of the tests";

/// Maximum time of one step.
const LONG: Duration = Duration::from_secs(20);

/// Runtime with one dependency `dep`, and its admin side.
pub(crate) struct Rig {
    pub(crate) bench: Bench,
    pub(crate) admin: Admin,
    pub(crate) server: Server,
    http: Client,
}

impl Rig {
    pub(crate) async fn start(configure: impl FnOnce(&mut DependencySettings)) -> Self {
        Self::with(configure, Vec::new(), Some(TOKEN), ServerLimits::default()).await
    }

    pub(crate) async fn with(
        configure: impl FnOnce(&mut DependencySettings),
        rules: Vec<FallbackRule<Dep>>,
        token: Option<&str>,
        limits: ServerLimits,
    ) -> Self {
        let settings = RuntimeSettings {
            clock: Some(Clock::real()),
            ..RuntimeSettings::default()
        };
        let runtime = TestRuntime::with(settings).await;
        let bench = Bench::on(runtime, configure, rules).await;
        let mut loader = Settings::loader().bare();
        if let Some(token) = token {
            loader = loader.flag("admin.token", token);
        }
        let admin = Admin::new((*bench.runtime).clone(), &loader.load().unwrap());
        admin.set_phase(Phase::Ready);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = admin.serve_with(listener, limits).unwrap();
        let http = Client::builder().no_proxy().timeout(LONG).build().unwrap();
        Self {
            bench,
            admin,
            server,
            http,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn get_text(&self, path: &str) -> String {
        let response = self.request(Method::GET, path).send().await.unwrap();
        response.text().await.unwrap()
    }

    /// Returns the status and the problem document of a refused request.
    pub(crate) async fn problem(&self, request: RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/problem+json");
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) fn order(&self, path: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, path).bearer_auth(TOKEN);
        request.json(body)
    }

    pub(crate) async fn operate(&self, operation: &str) -> Value {
        let path = format!("/api/dependencies/dep/{operation}");
        let order = self.order(&path, &json!({ "reason": "a test" }));
        let response = order.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{operation}");
        response.json().await.unwrap()
    }

    pub(crate) async fn dependency(&self) -> Value {
        self.get("/api/dependencies/dep").await
    }

    pub(crate) async fn finish(self) {
        self.server.stop();
        drop(self.admin);
        self.bench.finish().await;
    }
}

/// Reads the response until it contains these words.
pub(crate) async fn read_until(response: &mut Response, words: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(words) {
            let chunk = response.chunk().await.unwrap().expect("it goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    let read = tokio::time::timeout(LONG, reading).await;
    assert!(read.is_ok(), "no {words:?} in {text}");
    text
}
