//! The dashboard in a real browser: its views, its actions, and its users.
//!
//! No test waits for a span of time: it polls the page until the expected content shows.

mod axe;
mod browser;
mod consumers;
mod figures;
mod groups;
mod lists;
mod models;
mod nested;
mod orders;
mod outage;

mod past;
mod people;

use std::net::{SocketAddr, TcpListener};

use breakerbox::admin::{Admin, Phase, Server};
use breakerbox::config::Settings;
use breakerbox::{Clock, FallbackRule, Fixed, RuntimeSettings};
use breakerbox_actors::Client;
use breakerbox_actors::testing::{Script, TestRuntime};
use breakerbox_policy::{DependencySettings, HalfOpenRule, State};
use serde_json::{Value, json};

use self::browser::{Complaint, Page};
use super::{Rig, TOKEN};
use crate::scripted::{self, Dep, Do, ms, opens_after};

/// Several dependencies, their admin server, and a page.
struct Stage {
    runtime: TestRuntime,
    script: Script<Do, u32>,
    clients: Vec<Client<Dep>>,
    admin: Admin,
    server: Server,
    page: Page,
}

impl Stage {
    /// Returns `None` if there is no browser and that is permitted.
    async fn start(names: &[&str], configure: impl Fn(&mut DependencySettings)) -> Option<Self> {
        let page = Page::start().await?;
        let (runtime, script, clients) = run(names, configure).await;
        let (admin, server) = serve(&runtime, None);
        let stage = Self {
            runtime,
            script,
            clients,
            admin,
            server,
            page,
        };
        stage.visit().await;
        Some(stage)
    }

    /// Opens the page, and waits until it shows every dependency.
    async fn visit(&self) {
        self.page
            .visit(&format!("http://{}/", self.server.address()))
            .await;
        self.page.until(LIVE).await;
        let all = self.runtime.statuses().len();
        self.page
            .until(&format!(
                "document.querySelectorAll('#grid > article').length === {all}"
            ))
            .await;
    }

    async fn ask(&self, told: Do) {
        // The page shows the result.
        let _ = self.clients[0].ask(told).await;
    }

    async fn open(&self, at: usize) {
        while self.clients[at].status().state == State::Closed {
            let _ = self.clients[at].ask(Do::Fail).await;
        }
    }

    /// Returns the events of this kind from the API.
    async fn events(&self, kind: &str) -> Value {
        let url = format!("http://{}/api/events?kind={kind}", self.server.address());
        let told = reqwest::get(url).await.unwrap();
        told.json::<Value>().await.unwrap()["events"].take()
    }

    /// Shuts everything down; fails on every error of the page except those that `expected`
    /// accepts.
    async fn finish(self, expected: impl Fn(&Complaint) -> bool) {
        let complaints = self.page.complaints().await;
        let bad = complaints.iter().filter(|one| !expected(one));
        let bad: Vec<&str> = bad.map(|one| one.text.as_str()).collect();
        assert_eq!(bad, Vec::<&str>::new());
        self.page.close().await;
        self.server.stop();
        drop(self.admin);
        drop(self.clients);
        self.runtime.finish().await;
    }
}

const LIVE: &str = "document.querySelector('#link').innerText === 'Live'";

/// Returns the expression for a dependency's state as the page shows it.
fn state(name: &str) -> String {
    format!("document.querySelector('[data-name=\"{name}\"] .state').innerText.trim()")
}

fn part(name: &str, selector: &str) -> String {
    format!("document.querySelector('[data-name=\"{name}\"] {selector}')")
}

fn nothing(_: &Complaint) -> bool {
    false
}

/// Returns true for the console message that a browser writes for a failed request.
fn network(complaint: &Complaint) -> bool {
    complaint.source == "network"
}

async fn run(
    names: &[&str],
    configure: impl Fn(&mut DependencySettings),
) -> (TestRuntime, Script<Do, u32>, Vec<Client<Dep>>) {
    let settings = RuntimeSettings {
        clock: Some(Clock::real()),
        ..RuntimeSettings::default()
    };
    let runtime = TestRuntime::with(settings).await;
    let script = Script::new(|told: Do, _| told.reaction());
    let mut clients = Vec::new();
    for name in names {
        // Only this dependency has a fallback.
        let rules = match *name {
            "covered" => vec![FallbackRule::new(Fixed(7))],
            _ => Vec::new(),
        };
        clients.push(scripted::start(&runtime, name, &script, &configure, rules).await);
    }
    (runtime, script, clients)
}

fn serve(runtime: &TestRuntime, address: Option<SocketAddr>) -> (Admin, Server) {
    let loader = Settings::loader().bare().flag("admin.token", TOKEN);
    let admin = Admin::new((**runtime).clone(), &loader.load().unwrap());
    admin.set_phase(Phase::Ready);
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = admin.serve(TcpListener::bind(address).unwrap()).unwrap();
    (admin, server)
}

#[tokio::test]
async fn item_100_the_dashboard_shows_open_countdown_half_open_closed_and_reconnects() {
    let configure = |settings: &mut DependencySettings| {
        opens_after(3, ms(6_000))(settings);
        settings.breaker.half_open.rule = HalfOpenRule::Successes(scripted::nonzero(2));
    };
    let Some(mut stage) = Stage::start(&["search", "graph", "index"], configure).await else {
        return;
    };
    let page = &stage.page;
    // A reloaded page would lose this mark.
    page.value("window.mark = 'same page'").await;
    page.until(&format!("{} === 'Breaker closed'", state("search")))
        .await;
    stage.open(0).await;
    page.until(&format!("{} === 'Breaker open'", state("search")))
        .await;
    page.until(&format!(
        "{}.innerText.includes('3 calls in a row failed')",
        part("search", ".why")
    ))
    .await;
    // The countdown decreases by itself.
    let left = format!(
        "Number(/^Next probe in (\\d+) s$/.exec({}.innerText)[1])",
        part("search", ".left")
    );
    page.until(&format!("{left} > 0")).await;
    let first = page.value(&left).await.as_u64().unwrap();
    assert!((1..=6).contains(&first), "{first}");
    page.until(&format!("{left} < {first}")).await;
    // The failing dependency comes first, and the summary counts it.
    assert_eq!(page.value(FIRST).await, "search");
    page.until(&format!("{} === '1'", tile("down"))).await;
    page.until(&format!("{} === 'Breaker half-open'", state("search")))
        .await;
    stage.ask(Do::Answer(1)).await;
    page.until(&format!(
        "{}.innerText.startsWith('1 of 2 probes succeeded')",
        part("search", ".left")
    ))
    .await;
    stage.ask(Do::Answer(1)).await;
    page.until(&format!("{} === 'Breaker closed'", state("search")))
        .await;
    page.until(&format!("{} === '0'", tile("down"))).await;
    let moves = part("search", ".body details:nth-of-type(2)");
    page.until(&format!("{moves}.innerText.startsWith('3 transitions')"))
        .await;

    // The server stops, and the page says so; once it is back on the same port, the page
    // reconnects.
    let address = stage.server.address();
    stage.server.stop();
    page.until("document.querySelector('#link').innerText === 'Connection lost, trying again'")
        .await;
    page.until("!document.querySelector('#lost').hidden").await;
    (stage.admin, stage.server) = serve(&stage.runtime, Some(address));
    stage.page.until(LIVE).await;
    stage.open(0).await;
    let page = &stage.page;
    page.until(&format!("{} === 'Breaker open'", state("search")))
        .await;
    page.until("document.querySelector('#lost').hidden").await;
    assert_eq!(page.value("window.mark").await, "same page");
    stage.finish(network).await;
}

const FIRST: &str = "document.querySelector('#grid > article').dataset.name";

fn tile(group: &str) -> String {
    format!("document.querySelector('.tile[data-group=\"{group}\"] .number').innerText")
}

#[tokio::test]
async fn item_100_a_server_that_begins_anew_is_shown_as_it_is_now() {
    let Some(mut stage) = Stage::start(&["search", "graph"], opens_after(1, ms(600_000))).await
    else {
        return;
    };
    stage.open(0).await;
    stage
        .page
        .until(&format!("{} === 'Breaker open'", state("search")))
        .await;
    stage.page.until(&event_of("search", "transition")).await;
    let address = stage.server.address();
    stage.server.stop();
    stage.runtime.finish().await;
    // The new runtime numbers its events from 1 again and has more of them; one dependency is gone.
    (stage.runtime, stage.script, stage.clients) =
        run(&["graph", "other"], opens_after(1, ms(600_000))).await;
    for _ in 0..20 {
        stage.runtime.reset_all("again").await;
    }
    (stage.admin, stage.server) = serve(&stage.runtime, Some(address));
    stage.open(1).await;
    let page = &stage.page;
    page.until(&format!("{} === 'Breaker open'", state("other")))
        .await;
    page.until(&event_of("other", "transition")).await;
    page.until("document.querySelector('[data-name=\"search\"]') === null")
        .await;
    page.until(&format!("!({})", event_of("search", "transition")))
        .await;
    assert_eq!(page.text(&state("graph")).await, "Breaker closed");
    let all = stage.runtime.events_since(0).len();
    page.until(&format!(
        "document.querySelector('#events-count').innerText === '{all}'"
    ))
    .await;
    stage.finish(network).await;
}

/// Returns the expression that is true if the list shows this kind of event for this dependency.
fn event_of(name: &str, kind: &str) -> String {
    format!(
        "[...document.querySelectorAll('#events li')].some((row) => \
         row.querySelector('.subject').innerText === '{name}' \
         && row.querySelector('.event-kind').innerText === '{kind}')"
    )
}

#[tokio::test]
async fn sec_1_the_page_and_its_files_may_load_nothing_from_elsewhere() {
    let rig = Rig::start(|_| {}).await;
    let page = rig.get_text("/").await;
    assert!(page.starts_with("<!doctype html>"));
    let elsewhere = [
        "http://", "https://", "//", "<style", "style=", "onclick", "onload",
    ];
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/app.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = rig
            .request(reqwest::Method::GET, path)
            .send()
            .await
            .unwrap();
        let headers = answer.headers();
        assert_eq!(headers["content-type"], kind);
        assert_eq!(headers["cache-control"], "no-store");
        let policy = headers["content-security-policy"].to_str().unwrap();
        let rules: Vec<&str> = policy.split("; ").collect();
        for rule in [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "frame-ancestors 'none'",
        ] {
            assert!(rules.contains(&rule), "{path}: {policy}");
        }
    }
    // The icon's SVG names its namespace; the browser loads nothing from there.
    let page = page.replace("xmlns='http://www.w3.org/2000/svg'", "");
    for word in elsewhere {
        assert!(!page.contains(word), "{word}");
    }
    let missing = rig
        .problem(rig.request(reqwest::Method::GET, "/dashboard/x.js"))
        .await;
    assert_eq!((missing.0, &missing.1["given"]), (404, &json!("x.js")));
    rig.finish().await;
}
