//! The connection to the NATS servers of a fleet: how it is made, and whether it stands.
//!
//! The client keeps all publications without a connection, and sends them after the next one.
//! So nothing is published here without a connection, and each question has a time limit of its
//! own. Credentials are read once, and appear in no error.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ClientError, ConnectOptions, Event, ServerAddr};
use breakerbox_actors::redact;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::FleetConfig;
use crate::lock::LockExt as _;

/// Longest wait between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// Time after which an attempt to connect to one address is given up.
const CONNECT: Duration = Duration::from_secs(2);
/// Interval of the pings by which a silent server is noticed; two of them may stay unanswered.
const PING: Duration = Duration::from_secs(2);
/// Longest wait for the answer to a publication, above the time limits of all callers.
const ANSWER: Duration = Duration::from_secs(5);

/// The reason why NATS did not do as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NatsError {
    /// There is no connection; nothing was sent.
    #[error("there is no connection to NATS")]
    NotConnected,
    /// No answer came in time; it may have been executed.
    #[error("NATS did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The credentials or the addresses cannot be used.
    #[error("the connection to NATS cannot be set up: {0}")]
    Setup(String),
    /// The server, or the client, refused it.
    #[error("{0}")]
    Refused(String),
}

impl NatsError {
    /// Returns an error of the client, without secrets.
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self::Refused(redact(&error.to_string()).into_owned())
    }

    fn setup(error: impl std::fmt::Display) -> Self {
        Self::Setup(redact(&error.to_string()).into_owned())
    }
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// True while it stands.
    pub(crate) is_connected: bool,
    /// Number of connections so far: knowledge from an earlier one is old.
    pub(crate) connections: u64,
}

/// One connection, shared by all that speak to the servers. It is cheap to clone, and is made anew
/// after each loss, with backoff and jitter.
#[derive(Debug, Clone)]
pub(crate) struct NatsConnection {
    client: Client,
    standing: watch::Receiver<Standing>,
    problem: watch::Receiver<Option<String>>,
    complaints: Arc<Mutex<ServerComplaints>>,
}

/// Number of complaints of the servers that are kept.
const MAX_COMPLAINTS: usize = 64;

/// The complaints of the servers in one connection, each with its last time.
#[derive(Debug, Default)]
struct ServerComplaints(BTreeMap<String, Instant>);

impl ServerComplaints {
    /// Notes a complaint. Returns true for a new one that is to be told: not while they are many.
    fn note(&mut self, text: &str) -> bool {
        let is_new = self.0.insert(text.to_owned(), Instant::now()).is_none();
        if self.0.len() <= MAX_COMPLAINTS {
            return is_new;
        }
        // Their words name subjects, and each message may have one of its own.
        let oldest = self.0.iter().min_by_key(|(_, at)| **at);
        if let Some(oldest) = oldest.map(|(text, _)| text.clone()) {
            self.0.remove(&oldest);
        }
        false
    }

    /// Returns true if the servers have refused a publication to this subject since then.
    fn has_forbidden(&self, subject: &str, since: Instant) -> bool {
        let quoted = format!("\"{}\"", subject.to_ascii_lowercase());
        self.0.iter().any(|(text, at)| {
            let text = text.to_ascii_lowercase();
            *at >= since && text.contains("permissions violation") && text.contains(&quoted)
        })
    }
}

impl NatsConnection {
    /// Begins to connect, and returns at once: the servers may come later.
    ///
    /// # Errors  [`NatsError::Setup`]: a file cannot be used. Read it again later.
    pub(crate) async fn open(config: &FleetConfig, name: &str) -> Result<Self, NatsError> {
        // One text with commas is no list for the client: each address is parsed by itself.
        let servers = config.servers.iter().map(|one| one.parse::<ServerAddr>());
        let servers: Vec<_> = servers
            .collect::<Result<_, _>>()
            .map_err(NatsError::setup)?;
        let (tell, standing) = watch::channel(Standing::default());
        let (tell_problem, problem) = watch::channel(None);
        let complaints = Arc::new(Mutex::new(ServerComplaints::default()));
        let noted = Arc::clone(&complaints);
        // EDGE-8: addresses alone, without the credentials that they may have.
        let named = servers
            .iter()
            .map(|one| format!("{}:{}", one.host(), one.port()));
        let named = named.collect::<Vec<_>>().join(", ");
        let options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .request_timeout(Some(ANSWER))
            .max_reconnects(None)
            .reconnect_delay_callback(backoff)
            .event_callback(move |event| {
                note(&tell, &noted, &event);
                note_problem(&tell_problem, &named, &event);
                async {}
            });
        let options = authenticate(options, config).await?;
        let options = encrypt(options, config);
        let client = options.connect(servers).await.map_err(NatsError::setup)?;
        Ok(Self {
            client,
            standing,
            problem,
            complaints,
        })
    }

    /// Returns true while the connection stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns the state of the connection. Its changes can be awaited.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Returns the reason for which the last attempt to connect failed, with the addresses; `None`
    /// while the connection stands. Its changes can be awaited.
    pub(crate) fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.clone()
    }

    /// Returns true if the account was not permitted to publish to this subject since then.
    pub(crate) fn is_forbidden(&self, subject: &str, since: Instant) -> bool {
        self.complaints.acquire().has_forbidden(subject, since)
    }

    /// Returns the client, for subscriptions.
    ///
    /// # Errors  [`NatsError::NotConnected`].
    pub(crate) fn client(&self) -> Result<&Client, NatsError> {
        // FLT-15: nothing is published without a connection, so nothing stale is sent later.
        match self.is_connected() {
            true => Ok(&self.client),
            false => Err(NatsError::NotConnected),
        }
    }

    /// Returns JetStream; each question to it needs [`NatsConnection::within`].
    ///
    /// # Errors  [`NatsError::NotConnected`].
    pub(crate) fn jetstream(&self) -> Result<Context, NatsError> {
        Ok(jetstream::new(self.client()?.clone()))
    }

    /// Publishes a message that is stored nowhere.
    ///
    /// # Errors  [`NatsError`]; nothing is sent later.
    pub(crate) async fn publish(
        &self,
        subject: String,
        payload: Bytes,
        limit: Duration,
    ) -> Result<(), NatsError> {
        let client = self.client()?;
        self.within(limit, client.publish(subject, payload)).await
    }

    /// Awaits an answer of the servers, for `limit` at most.
    ///
    /// # Errors  [`NatsError`]. After [`NatsError::TimedOut`] it may have been executed.
    /// # Cancel safety   A question that was sent may have been executed.
    pub(crate) async fn within<T, E: std::fmt::Display>(
        &self,
        limit: Duration,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, NatsError> {
        self.client()?;
        match tokio::time::timeout(limit, question).await {
            Ok(answer) => answer.map_err(NatsError::of),
            Err(_) => Err(NatsError::TimedOut(limit)),
        }
    }
}

/// Returns true if a publication was not taken because another one came before it: its subject, or its
/// stream, has another last number than it expects.
pub(crate) fn has_lost_swap(error: &PublishError) -> bool {
    // FLT-7: copies of a stream that are about to write the other one have an error of their own.
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    let code = source.map(jetstream::Error::error_code);
    error.kind() == PublishErrorKind::WrongLastSequence
        || code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

async fn authenticate(
    options: ConnectOptions,
    config: &FleetConfig,
) -> Result<ConnectOptions, NatsError> {
    // SEC-1: the contents of the files and the token appear in no text.
    if let Some(path) = &config.credentials {
        let text = read(path).await?;
        return options.credentials(&text).map_err(|_| {
            let path = path.display();
            NatsError::Setup(format!("{path} has no credentials of a NATS user"))
        });
    }
    Ok(match &config.token {
        Some(token) => options.token(token.expose().to_owned()),
        None => options,
    })
}

async fn read(path: &Path) -> Result<String, NatsError> {
    let read = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || std::fs::read_to_string(path)
    });
    let text = read.await.map_err(NatsError::setup)?;
    text.map_err(|error| NatsError::Setup(format!("{}: {}", path.display(), error.kind())))
}

fn encrypt(options: ConnectOptions, config: &FleetConfig) -> ConnectOptions {
    let Some(tls) = &config.tls else {
        return options;
    };
    let mut options = options.require_tls(true);
    if let Some(ca) = &tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = tls.cert.clone().zip(tls.key.clone()) {
        options = options.add_client_certificate(cert, key);
    }
    options
}

/// Returns the wait before an attempt to connect: 10 ms, then twice as long each time, at most
/// [`MAX_BACKOFF`], of it a random half, so that replicas do not come back in one moment.
fn backoff(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doubled = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(10);
    let longest = (Duration::from_millis(10) * 2_u32.pow(doubled)).min(MAX_BACKOFF);
    longest.mul_f64(0.5 + random_half())
}

/// Returns a number from 0 to 0.5.
pub(crate) fn random_half() -> f64 {
    // Each state has keys of its own.
    let random = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(random).unwrap_or(u32::MAX)) / f64::from(u32::MAX) / 2.0
}

fn note(tell: &watch::Sender<Standing>, complaints: &Mutex<ServerComplaints>, event: &Event) {
    match event {
        Event::Connected => tell.send_modify(|now| {
            now.is_connected = true;
            now.connections += 1;
        }),
        Event::Disconnected | Event::Closed => tell.send_modify(|now| now.is_connected = false),
        Event::ServerError(error) => {
            // The servers repeat it with each publication, and a heartbeat is one.
            let text = redact(&error.to_string()).into_owned();
            match complaints.acquire().note(&text) {
                true => tracing::warn!("NATS: {text}"),
                false => tracing::debug!("NATS: {text}"),
            }
        }
        other => tracing::debug!("NATS: {}", redact(&other.to_string())),
    }
}

/// Notes the reason of a failed attempt to connect. The same one again is no change.
fn note_problem(tell: &watch::Sender<Option<String>>, servers: &str, event: &Event) {
    let problem = match event {
        Event::ClientError(ClientError::Other(error)) => {
            // The client's own words for a refused connection and for a broken one.
            let error = match error.trim() {
                "IO error" => "it cannot be reached (IO error); does a NATS server listen there?",
                other => other,
            };
            Some(redact(&format!("{servers}: {error}")).into_owned())
        }
        Event::Connected => None,
        _ => return,
    };
    tell.send_if_modified(|now| {
        let is_new = *now != problem;
        *now = problem;
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_8_a_failed_attempt_to_connect_is_told_once() {
        let (tell, mut problem) = watch::channel(None);
        let refused = Event::ClientError(ClientError::Other("authorization violation".to_owned()));
        note_problem(&tell, "127.0.0.1:4222", &refused);
        let told = problem.borrow_and_update().clone();
        assert_eq!(
            told.as_deref(),
            Some("127.0.0.1:4222: authorization violation")
        );
        let (other, unreached) = watch::channel(None);
        let absent = Event::ClientError(ClientError::Other("IO error".to_owned()));
        note_problem(&other, "127.0.0.1:4222", &absent);
        let told = unreached.borrow().clone().unwrap_or_default();
        assert!(
            told.starts_with("127.0.0.1:4222: it cannot be reached"),
            "{told}"
        );
        note_problem(&tell, "127.0.0.1:4222", &refused);
        note_problem(&tell, "127.0.0.1:4222", &Event::Disconnected);
        assert!(!problem.has_changed().unwrap());
        note_problem(&tell, "127.0.0.1:4222", &Event::Connected);
        assert_eq!(*problem.borrow_and_update(), None);
    }

    #[test]
    fn msg_6_a_complaint_is_told_once_and_names_the_subject() {
        let mut complaints = ServerComplaints::default();
        let began = Instant::now();
        let text = "nats: permissions violation for publish to \"dead.web\"";
        assert!(complaints.note(text));
        assert!(!complaints.note(text), "once for each reason");
        assert!(complaints.has_forbidden("dead.web", began));
        assert!(!complaints.has_forbidden("dead.we", began));
        let later = Instant::now() + Duration::from_secs(1);
        assert!(
            !complaints.has_forbidden("dead.web", later),
            "it may be permitted by now"
        );
        for number in 0..2 * MAX_COMPLAINTS {
            complaints.note(&number.to_string());
        }
        assert!(!complaints.note(text), "they are too many to be told");
        assert_eq!(complaints.0.len(), MAX_COMPLAINTS);
        assert!(complaints.has_forbidden("dead.web", began));
    }

    #[test]
    fn flt_7_a_swap_that_came_second_is_told_from_a_failure() {
        let of_server = |code: u64| {
            let text = format!("{{\"code\":400,\"err_code\":{code},\"description\":\"no\"}}");
            let error: jetstream::Error = serde_json::from_str(&text).unwrap();
            PublishError::with_source(PublishErrorKind::Other, error)
        };
        assert!(has_lost_swap(&of_server(10164)));
        assert!(!has_lost_swap(&of_server(10077)));
        let kind = PublishErrorKind::WrongLastSequence;
        assert!(has_lost_swap(&PublishError::new(kind)));
        assert!(!has_lost_swap(&PublishError::new(
            PublishErrorKind::TimedOut
        )));
    }

    #[test]
    fn flt_15_waits_between_attempts_grow_to_a_second() {
        assert_eq!(backoff(0), Duration::ZERO);
        assert_eq!(backoff(1), Duration::ZERO);
        for (attempt, longest) in [(2, 10), (3, 20), (6, 160), (9, 1000), (1000, 1000)] {
            let wait = backoff(attempt);
            let longest = Duration::from_millis(longest);
            assert!(
                wait >= longest / 2 && wait <= longest,
                "{attempt}: {wait:?}"
            );
        }
    }
}
