//! The sidecar as a consumer: real processes, a real NATS server, a real HTTP service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_nats::jetstream::Context as JetStream;
use async_nats::jetstream::consumer::PullConsumer;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::nats::{NatsServer, PATIENCE, count, publish, stored, stream, until_count};
use super::*;
use crate::gateway::serve::{Sidecar, command, configured};

/// A service that does the work of each message and counts it by the message's own number.
#[derive(Clone, Default)]
pub(super) struct Service {
    state: Arc<ServiceState>,
}

#[derive(Default)]
struct ServiceState {
    is_down: AtomicBool,
    calls: Mutex<Vec<(String, bool)>>,
    /// Keys of the calls that are under way, and those of which two were.
    keys: Mutex<(BTreeSet<String>, Vec<String>)>,
}

/// A key with a call under way.
struct KeyUnderWay<'s>(&'s ServiceState, String);

impl<'s> KeyUnderWay<'s> {
    fn of(state: &'s ServiceState, key: String) -> Self {
        let mut keys = state.keys.lock().unwrap();
        if !keys.0.insert(key.clone()) {
            keys.1.push(key.clone());
        }
        drop(keys);
        Self(state, key)
    }
}

impl Drop for KeyUnderWay<'_> {
    fn drop(&mut self) {
        self.0.keys.lock().unwrap().0.remove(&self.1);
    }
}

impl Service {
    /// Starts it; returns it and its address.
    pub(super) async fn start() -> (Self, String) {
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
        let key = request.headers().get("x-key");
        let key = key.map(|key| key.to_str().unwrap().to_owned());
        // Given back by its drop: a caller that is killed ends its call here too.
        let held = key.map(|key| KeyUnderWay::of(&self.state, key));
        let work = if path == "/slow" { 600 } else { 5 };
        tokio::time::sleep(Duration::from_millis(work)).await;
        drop(held);
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

    pub(super) fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::SeqCst);
    }

    pub(super) fn calls(&self) -> usize {
        self.state.calls.lock().unwrap().len()
    }

    /// Returns the number of calls for each number.
    pub(super) fn by_number(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (number, _) in &*self.state.calls.lock().unwrap() {
            *all.entry(number.clone()).or_default() += 1;
        }
        all
    }

    /// Returns the numbers of the calls in their order.
    pub(super) fn numbers(&self) -> Vec<String> {
        let calls = self.state.calls.lock().unwrap();
        calls.iter().map(|(number, _)| number.clone()).collect()
    }

    /// Returns the keys of which two calls were under way at once.
    pub(super) fn overlaps(&self) -> Vec<String> {
        self.state.keys.lock().unwrap().1.clone()
    }

    pub(super) fn calls_while_down(&self) -> usize {
        let calls = self.state.calls.lock().unwrap();
        calls.iter().filter(|(_, is_down)| *is_down).count()
    }
}

/// Writes a configuration with one consumer. `own`: further keys of it.
pub(super) fn configure(folder: &std::path::Path, nats: &NatsServer, service: &str, own: &str) {
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
pub(super) async fn until_made(context: &JetStream, name: &str) {
    let made = async {
        while context.get_stream(name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
}

/// Publishes calls, each with its number. `more`: headers of each.
pub(super) async fn publish_calls(
    context: &JetStream,
    numbers: std::ops::Range<u32>,
    more: &[(&str, &str)],
) {
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

/// Waits until the first consumer of a sidecar shows books for which this holds: they are written after
/// the server's word. Returns all of them.
pub(super) async fn until_books(
    sidecar: &Sidecar,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    let asked = async {
        loop {
            let books = reqwest::get(sidecar.admin("/api/consumers")).await.unwrap();
            let books: serde_json::Value = books.json().await.unwrap();
            last = books[0].clone();
            if holds(&last) {
                return books;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(books) => books,
        Err(_) => panic!("the books never came to this, and are at last {last}"),
    }
}

/// Waits until the durable consumer has nothing to deliver and waits for no word. Then all messages that
/// the stream has still are acknowledged ones, up to the floor below which the server has heard of all.
///
/// A server writes the end of a message and the state of a consumer at different moments. Killed in
/// between, it has acknowledged messages in the stream of a work queue after its next start, and never
/// delivers them again (2.9.10, after 3 of 30 kills on a busy machine). Removing them would need the
/// floor alone, and no message may depend on that.
async fn until_consumed(context: &JetStream) {
    let consumed = async {
        loop {
            let stream = context.get_stream("CALLS").await.unwrap();
            let consumer: PullConsumer = stream.get_consumer("breakerbox_jobs").await.unwrap();
            let info = consumer.cached_info();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                let floor = info.ack_floor.stream_sequence;
                let state = stream.get_info().await.unwrap().state;
                for number in floor + 1..=state.last_sequence {
                    let left = stream.get_raw_message(number).await;
                    assert!(
                        left.is_err(),
                        "{number} is there and was never acknowledged"
                    );
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let consumed = tokio::time::timeout(PATIENCE, consumed).await;
    consumed.expect("all messages are consumed");
}

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
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    publish_calls(&context, 0..60, &[("idempotency-key", "k")]).await;
    nats.restart(Duration::from_millis(300)).await;
    let context = nats.jetstream().await;
    publish_calls(&context, 100..120, &[("idempotency-key", "k")]).await;
    until_count(&context, "ANSWERS", 80).await;
    until_consumed(&context).await;
    let answers = stored(&context, "ANSWERS").await;
    let mut ids: Vec<&str> = answers
        .iter()
        .map(|one| one.header("nats-msg-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((answers.len(), ids.len()), (80, 80));
    assert!(service.calls() >= 80);
    assert_eq!(count(&context, "dead_web").await, 0);
    until_books(&sidecar, |one| {
        one["answered"].as_u64().unwrap() >= 80 && one["in_flight"] == 0
    })
    .await;
}

/// A message that no connection has taken in time was not executed, so it is no dead letter.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn call_2_msg_7_a_message_that_was_not_sent_in_time_is_given_back() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let _silent = crate::gateway::first_address::silent(address).await;
    let folder = tempfile::tempdir().unwrap();
    let limits = "[dependencies.web.timeout]\nconnect = \"off\"\nattempt = \"200ms\"\n";
    configure(folder.path(), &nats, &format!("http://{address}"), limits);
    let context = nats.jetstream().await;
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    publish_calls(&context, 0..1, &[]).await;
    let books = until_books(&sidecar, |one| {
        one["returned"]["failed"].as_u64() > Some(0)
            || one["dead_letters"]["maybe"].as_u64() > Some(0)
    });
    let books = books.await;
    assert!(books[0]["returned"]["failed"].as_u64() > Some(0), "{books}");
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

#[tokio::test]
async fn msg_3_nothing_is_lost_to_a_message_of_another_queue_with_the_same_id() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (_service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "max_failures = 1");
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    stream(&context, "dead_web", "dead.web").await;
    let taken = [("Nats-Msg-Id", "answer:5")];
    publish(&context, "answers.others", &taken, "another's answer").await;
    let taken = [("Nats-Msg-Id", "dead:77")];
    publish(&context, "dead.web", &taken, "another's dead letter").await;
    let _sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    let idempotent = [("idempotency-key", "k")];
    publish_calls(&context, 5..6, &idempotent).await;
    publish_calls(&context, 77..78, &idempotent).await;
    until_count(&context, "CALLS", 0).await;
    assert_eq!(count(&context, "ANSWERS").await, 2);
    assert_eq!(count(&context, "dead_web").await, 2);
}

#[tokio::test]
async fn msg_6_a_message_of_nearly_the_longest_length_becomes_a_dead_letter() {
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
    // With its own headers it is just short enough, and with those of a dead letter too long.
    let payload = "x".repeat((1 << 20) - 100);
    let headers = [("breakerbox-path", "/poison"), ("idempotency-key", "k")];
    publish(&context, "calls.web.find", &headers, &payload).await;
    until_count(&context, "CALLS", 0).await;
    let dead = stored(&context, "dead_web").await;
    assert_eq!(dead.len(), 1);
    assert!(!dead[0].header("breakerbox-cut").is_empty());
    assert_eq!(service.calls(), 1);
}
