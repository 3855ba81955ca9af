//! The sidecar as a consumer: real processes, a real NATS server, a real HTTP service.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_nats::jetstream::Context as JetStream;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::nats::{NatsServer, PATIENCE, count, publish, stored, stream, until_count};
use super::*;
use crate::gateway::serve::{Sidecar, command, configured};

/// A service that does the work of each message and counts it by the message's own number.
#[derive(Clone, Default)]
struct Service {
    state: Arc<ServiceState>,
}

#[derive(Default)]
struct ServiceState {
    is_down: AtomicBool,
    calls: Mutex<Vec<(String, bool)>>,
}

impl Service {
    /// Starts it; returns it and its address.
    async fn start() -> (Self, String) {
        let service = Self::default();
        let own = service.clone();
        let app = Router::new().fallback(move |request: Request| {
            let own = own.clone();
            async move { own.answer(request).await }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (service, url)
    }

    async fn answer(&self, request: Request) -> Response {
        let number = request.headers().get("x-number");
        let id = number.map_or(String::new(), |id| id.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        let is_poison = path == "/poison";
        let seen = (request.method().clone(), request.uri().to_string());
        let is_down = self.state.is_down.load(Ordering::SeqCst);
        self.state.calls.lock().unwrap().push((id, is_down));
        tokio::time::sleep(Duration::from_millis(5)).await;
        if is_down || is_poison {
            return (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response();
        }
        if path == "/missing" {
            return (StatusCode::NOT_FOUND, "no such thing").into_response();
        }
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        let (method, target) = seen;
        format!("{method} {target} {body}").into_response()
    }

    fn calls(&self) -> usize {
        self.state.calls.lock().unwrap().len()
    }

    /// Returns the number of calls for each number.
    fn by_number(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (number, _) in &*self.state.calls.lock().unwrap() {
            *all.entry(number.clone()).or_default() += 1;
        }
        all
    }

    fn calls_while_down(&self) -> usize {
        let calls = self.state.calls.lock().unwrap();
        calls.iter().filter(|(_, is_down)| *is_down).count()
    }
}

/// Writes a configuration with one consumer. `own`: further keys of it.
fn configure(folder: &std::path::Path, nats: &NatsServer, service: &str, own: &str) {
    let nats = nats.url();
    configured(
        folder,
        &format!(
            "[fleet]\nservers = [\"{nats}\"]\n\
             [dependencies.web]\nkind = \"http\"\nurl = \"{service}\"\n\
             retry = {{ max_attempts = 1, backoff = {{ base = \"20ms\", max = \"50ms\" }} }}\n\
             bulkhead = {{ max_concurrent = 16 }}\n\
             [dependencies.web.breaker]\nwindow = {{ kind = \"consecutive\" }}\n\
             failure_threshold = 5\nrecovery_timeout = \"300ms\"\n\
             recovery_backoff = {{ factor = 1.0, max = \"300ms\", jitter = 0.0 }}\n\
             half_open_attempt_limit = 1\n\
             [consumers.jobs]\ndependency = \"web\"\nstream = \"CALLS\"\nsubject = \"calls.web.>\"\n\
             dead_letters = \"dead.web\"\nanswers = \"answers.web\"\n\
             answer_subjects = [\"answers.>\"]\n{own}\n"
        ),
    );
}

/// Waits until the sidecar has made a stream.
async fn until_made(context: &JetStream, name: &str) {
    let made = async {
        while context.get_stream(name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
}

/// Publishes calls, each with its number. `more`: headers of each.
async fn publish_calls(context: &JetStream, numbers: std::ops::Range<u32>, more: &[(&str, &str)]) {
    for number in numbers {
        let number = number.to_string();
        let path = if number.ends_with("77") {
            "/poison"
        } else {
            "/work"
        };
        let mut headers = vec![
            ("Nats-Msg-Id", number.as_str()),
            ("x-number", number.as_str()),
            ("breakerbox-path", path),
        ];
        headers.extend(more);
        publish(context, "calls.web.find", &headers, "a question").await;
    }
}

/// Number of messages of the long tests; all of them with `BREAKERBOX_TEST_MESSAGES=10000`.
fn messages(usual: u32) -> u32 {
    let asked = std::env::var("BREAKERBOX_TEST_MESSAGES");
    asked.map_or(usual, |asked| asked.parse().unwrap())
}

#[tokio::test]
async fn msg_11_a_message_is_a_request_and_its_response_the_answer() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let _sidecar = Sidecar::start(command(folder.path()), 1);
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    // The sidecar makes the stream of the messages.
    until_made(&context, "CALLS").await;
    let subject = "calls.web.find";
    let put = [
        ("Nats-Msg-Id", "a"),
        ("breakerbox-method", "PUT"),
        ("breakerbox-path", "/find?q=1"),
        ("breakerbox-answer-to", "answers.me.17"),
    ];
    publish(&context, subject, &put, "rust").await;
    publish(&context, subject, &[("Nats-Msg-Id", "b")], "plain").await;
    let missing = [("Nats-Msg-Id", "c"), ("breakerbox-path", "/missing")];
    publish(&context, subject, &missing, "").await;
    for (id, name, value) in [
        ("d", "breakerbox-answer-to", "secret.subject"),
        ("e", "breakerbox-path", "/a/../b"),
        ("f", "breakerbox-ttl-ms", "soon"),
    ] {
        publish(&context, subject, &[("Nats-Msg-Id", id), (name, value)], "").await;
    }
    until_count(&context, "ANSWERS", 3).await;
    until_count(&context, "dead_web", 3).await;
    until_count(&context, "CALLS", 0).await;
    let answers = stored(&context, "ANSWERS").await;
    let answer = |id: &str| {
        let mut all = answers.iter();
        all.find(|one| one.header("nats-msg-id") == id).unwrap()
    };
    let put = answer("answer:a");
    assert_eq!(put.subject, "answers.me.17");
    assert_eq!(put.payload, "PUT /find?q=1 rust");
    for (name, value) in [
        ("breakerbox-status", "200"),
        ("breakerbox-source", "primary"),
        ("breakerbox-attempts", "1"),
    ] {
        assert_eq!(put.header(name), value, "{name}");
    }
    assert!(put.header("content-type").starts_with("text/plain"));
    assert_eq!(answer("answer:b").payload, "POST / plain");
    // MSG-5: what the dependency rejects is an answer too.
    let missing = answer("answer:c");
    assert_eq!(missing.header("breakerbox-status"), "404");
    assert_eq!(missing.payload, "no such thing");
    for letter in stored(&context, "dead_web").await {
        let problem = letter.header("breakerbox-problem");
        assert!(problem.contains("\"reason\":\"malformed\""), "{problem}");
        assert!(problem.contains("\"executed\":\"no\""), "{problem}");
    }
    assert_eq!(service.calls(), 3, "what is malformed is not called");
}

#[tokio::test]
async fn msg_3_nothing_is_lost_in_an_outage_with_one_of_two_consumers_killed() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(
        folder.path(),
        &nats,
        &url,
        "ack_wait = \"2s\"\nmax_delay = \"1s\"",
    );
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let first = Sidecar::start(command(folder.path()), 1);
    let second = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    let all = messages(400);
    publish_calls(&context, 0..all / 2, &[("idempotency-key", "k")]).await;
    service.state.is_down.store(true, Ordering::SeqCst);
    let span = if all >= 10_000 { 10_000 } else { 2_000 };
    publish_calls(&context, all / 2..all, &[("idempotency-key", "k")]).await;
    tokio::time::sleep(Duration::from_millis(span / 2)).await;
    first.signal("KILL");
    tokio::time::sleep(Duration::from_millis(span / 2)).await;
    let while_down = service.calls_while_down();
    service.state.is_down.store(false, Ordering::SeqCst);
    // MSG-5: poison alone keeps its breaker open, so that its failures count for nothing.
    let poison = (0..all).filter(|number| number.to_string().ends_with("77"));
    let mut more = 10_000_u32..;
    let end = tokio::time::Instant::now() + PATIENCE;
    while count(&context, "dead_web").await < poison.clone().count() as u64 {
        assert!(tokio::time::Instant::now() < end, "the poison is not dead");
        let number = more.next().unwrap() * 100;
        publish_calls(&context, number..number + 1, &[("idempotency-key", "k")]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let more = more.start - 10_000;
    until_count(&context, "CALLS", 0).await;
    // The threshold and what was in flight at each of two, then one probe a period each.
    let periods = usize::try_from(span / 300).unwrap() * 2;
    assert!(
        while_down <= 2 * (5 + 16) + 2 * periods + 8,
        "{while_down} calls while it was down"
    );
    let dead = stored(&context, "dead_web").await;
    let mut buried: Vec<&str> = dead.iter().map(|one| one.header("x-number")).collect();
    buried.sort_unstable();
    let mut poison: Vec<String> = poison.map(|number| number.to_string()).collect();
    poison.sort_unstable();
    assert_eq!(
        buried, poison,
        "the poison messages are exactly the dead letters"
    );
    let answers = stored(&context, "ANSWERS").await;
    let mut ids: Vec<&str> = answers
        .iter()
        .map(|one| one.header("nats-msg-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(answers.len(), ids.len(), "answered twice");
    assert_eq!(ids.len() + poison.len(), (all + more) as usize, "lost");
    let figures = reqwest::get(second.admin("/api/consumers")).await.unwrap();
    let figures: serde_json::Value = figures.json().await.unwrap();
    let one = &figures[0];
    let sum = |name: &str| {
        let all = one[name].as_object().unwrap().values();
        all.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    let number = |name: &str| one[name].as_u64().unwrap();
    let ends = number("answered") + sum("dead_letters") + sum("returned") + number("in_flight");
    assert_eq!(number("fetched"), ends, "{one}");
}

#[tokio::test]
async fn msg_7_what_is_not_idempotent_is_never_executed_twice_though_a_consumer_is_killed() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(
        folder.path(),
        &nats,
        &url,
        "ack_wait = \"1s\"\nmax_delay = \"1s\"",
    );
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let first = Sidecar::start(command(folder.path()), 1);
    let _second = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    let all = messages(200);
    let publishing = publish_calls(&context, 0..all, &[]);
    let killing = async {
        while service.calls() < all as usize / 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.signal("KILL");
    };
    tokio::join!(publishing, killing);
    until_count(&context, "CALLS", 0).await;
    let twice: Vec<_> = service
        .by_number()
        .into_iter()
        .filter(|one| one.1 > 1)
        .collect();
    assert!(twice.is_empty(), "executed twice: {twice:?}");
    let (answers, dead) = (
        stored(&context, "ANSWERS").await,
        stored(&context, "dead_web").await,
    );
    let mut ends: Vec<&str> = Vec::new();
    ends.extend(answers.iter().map(|one| one.header("nats-msg-id")));
    let mut ids: Vec<String> = ends.iter().map(|id| id.replace("answer:", "")).collect();
    ids.extend(dead.iter().map(|one| one.header("x-number").to_owned()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all as usize, "lost");
    for letter in &dead {
        let problem = letter.header("breakerbox-problem");
        let is_poison = letter.header("x-number").ends_with("77");
        let expected = if is_poison { "yes" } else { "maybe" };
        let either = problem.contains(&format!("\"executed\":\"{expected}\""))
            || problem.contains("\"reason\":\"maybe\"");
        assert!(either, "{problem}");
    }
}

// Open: on a busy machine some messages stay in the stream for more than a minute after the restart.
// To be found out: are these acknowledged ones that the killed server's stream file still has?
#[ignore = "it fails on a busy machine: run it by its name"]
#[tokio::test]
async fn msg_2_a_broker_that_goes_away_in_mid_call_gets_the_answer_when_it_is_back() {
    let Some(mut nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "ack_wait = \"2s\"");
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let _sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    publish_calls(&context, 0..60, &[("idempotency-key", "k")]).await;
    nats.restart(Duration::from_millis(300)).await;
    let context = nats.jetstream().await;
    publish_calls(&context, 100..120, &[("idempotency-key", "k")]).await;
    until_count(&context, "CALLS", 0).await;
    let answers = stored(&context, "ANSWERS").await;
    let mut ids: Vec<&str> = answers
        .iter()
        .map(|one| one.header("nats-msg-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 80);
    assert!(service.calls() >= 80);
    assert_eq!(count(&context, "dead_web").await, 0);
}

#[tokio::test]
async fn msg_6_operators_look_at_dead_letters_and_put_them_back() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "max_failures = 1");
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let _sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "dead_web").await;
    publish_calls(&context, 77..78, &[("idempotency-key", "k")]).await;
    until_count(&context, "dead_web", 1).await;
    let dead = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        let output = command
            .arg("dead")
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text, err)
    };
    let (code, text, err) = dead(&["list", "jobs"]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("1\tfailures\tyes\t77\t"), "{text}");
    let (code, text, _) = dead(&["show", "jobs", "1"]);
    assert_eq!(code, 0);
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["payload"], "a question");
    assert_eq!(shown["subject"], "calls.web.find");
    assert_eq!(shown["problem"]["executed"], "yes");
    let calls = service.calls();
    let (code, text, err) = dead(&["requeue", "jobs", "1"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(text, "1 is in calls.web.find again\n");
    // It fails again, and is buried again.
    let again = async {
        while service.calls() == calls || count(&context, "dead_web").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    let (code, text, _) = dead(&["drop", "jobs", "2"]);
    assert_eq!((code, text.as_str()), (0, "2 is dropped\n"));
    let (_, text, _) = dead(&["list", "jobs"]);
    assert_eq!(text, "there are no dead letters\n");
    let (code, _, err) = dead(&["show", "jobs", "9"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = dead(&["list", "job"]);
    assert_eq!(code, 2);
    assert!(err.contains("did you mean jobs?"), "{err}");
}
