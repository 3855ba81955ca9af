//! The board on NATS: a bucket of JetStream, watched as a whole, and one subject for messages.
//!
//! Each connection is a session of its own: join, read the server's time, watch anew. A watch
//! outlives no connection, because one that is not polled while its server restarts hangs for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::datetime::DateTime;
use async_nats::jetstream::kv::{Entry, Operation, Store};
use async_nats::jetstream::stream;
use breakerbox_policy::fleet::BoardTime;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::board::{Board, BoardNews, SwapAnswer};
use super::board_word::{self as word, BoardKey, BoardWord};
use crate::config::FleetConfig;
use crate::lock::LockExt as _;
use crate::nats::{NatsConnection, NatsError, Standing, has_lost_swap};

/// Time limit of the questions by which a session begins.
const SETUP: Duration = Duration::from_secs(2);
/// Wait before another try of a session while its connection stands: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// Wait before the files of the connection are read again.
const REREAD: Duration = Duration::from_secs(5);
/// Number of writes that may wait for the connection's own queue (rule CALL-6).
const MAX_WRITES: usize = 1024;
/// Age from which words that concern one replica alone are purged.
const OLD: Duration = Duration::from_secs(3600);
/// Number of old words that one join purges.
const MAX_PURGED: usize = 64;
/// Size of a word that the bucket accepts, in bytes.
const MAX_VALUE: i32 = 64 * 1024;

/// A write, or a message.
enum Outgoing {
    Put(String, Bytes),
    TakeOff(String),
    Say(Bytes),
    Goodbye(Bytes, tokio::sync::oneshot::Sender<()>),
}

/// The board of one incarnation of the child.
pub(crate) struct NatsBoard {
    shared: Arc<BoardState>,
    writes: mpsc::Sender<Outgoing>,
    tasks: [JoinHandle<()>; 2],
}

struct BoardState {
    bucket: String,
    said: String,
    timeout: Duration,
    connection: Mutex<Option<NatsConnection>>,
    /// True while a session stands: joined, and its words are heard.
    is_joined: AtomicBool,
}

impl BoardState {
    /// Returns the connection while a session stands.
    fn joined(&self) -> Option<NatsConnection> {
        if !self.is_joined.load(Ordering::Acquire) {
            return None;
        }
        let connection = self.connection.acquire().clone()?;
        connection.is_connected().then_some(connection)
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}

impl NatsBoard {
    /// Opens the board on this thread's executor.
    pub(crate) fn open(config: &FleetConfig, name: &str, news: mpsc::Sender<BoardNews>) -> Self {
        let shared = Arc::new(BoardState {
            bucket: format!("breakerbox_{}", config.name),
            said: format!("breakerbox.{}.said", config.name),
            timeout: config.timeout,
            connection: Mutex::default(),
            is_joined: AtomicBool::new(false),
        });
        let (writes, queue) = mpsc::channel(MAX_WRITES);
        let keeper = SessionKeeper {
            shared: Arc::clone(&shared),
            config: config.clone(),
            name: name.to_owned(),
            news,
        };
        let tasks = [
            tokio::spawn(keeper.run()),
            tokio::spawn(write(Arc::clone(&shared), queue)),
        ];
        Self {
            shared,
            writes,
            tasks,
        }
    }

    fn send(&self, outgoing: Outgoing) {
        // FLT-15: nothing is written without a connection, so nothing stale is sent later.
        if self.shared.joined().is_some() && self.writes.try_send(outgoing).is_err() {
            tracing::debug!("a word for the board found no room");
        }
    }
}

impl Board for NatsBoard {
    fn put(&self, key: String, value: Bytes) {
        self.send(Outgoing::Put(key, value));
    }

    fn take_off(&self, key: String) {
        self.send(Outgoing::TakeOff(key));
    }

    fn swap(
        &self,
        key: String,
        value: Option<Bytes>,
        expected: Option<u64>,
    ) -> BoxFuture<'static, SwapAnswer> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let Some(connection) = shared.joined() else {
                return SwapAnswer::Unknown;
            };
            let mut headers = HeaderMap::new();
            if let Some(expected) = expected {
                let name = async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
                headers.insert(name, expected.to_string());
            }
            if value.is_none() {
                headers.insert("KV-Operation", "DEL");
            }
            let value = value.unwrap_or_default();
            swap(&connection, &shared, (shared.subject(&key), headers, value)).await
        })
    }

    fn say(&self, message: Bytes) {
        self.send(Outgoing::Say(message));
    }

    fn leave(&self, message: Bytes) -> BoxFuture<'static, ()> {
        let (gone, is_gone) = tokio::sync::oneshot::channel();
        self.send(Outgoing::Goodbye(message, gone));
        let patience = self.shared.timeout;
        Box::pin(async move {
            let _ = tokio::time::timeout(patience, is_gone).await;
        })
    }
}

impl Drop for NatsBoard {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Makes a swap, with a time limit for all of it.
async fn swap(
    connection: &NatsConnection,
    shared: &BoardState,
    (subject, headers, value): (String, HeaderMap, Bytes),
) -> SwapAnswer {
    let Ok(context) = connection.jetstream() else {
        return SwapAnswer::Unknown;
    };
    let question = async {
        let sent = context.publish_with_headers(subject, headers, value).await;
        match sent {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        }
    };
    match tokio::time::timeout(shared.timeout, question).await {
        Ok(Ok(answer)) => SwapAnswer::Done(answer.sequence),
        Ok(Err(error)) if has_lost_swap(&error) => SwapAnswer::Lost,
        _ => SwapAnswer::Unknown,
    }
}

/// Sends the writes in their order. Their answers are not waited for: a lost word is said again
/// after the next join.
async fn write(shared: Arc<BoardState>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = queue.recv().await {
        let Some(connection) = shared.joined() else {
            continue;
        };
        let limit = shared.timeout;
        let sent = match outgoing {
            Outgoing::Put(key, value) => {
                let subject = shared.subject(&key);
                connection.publish(subject, value, limit).await
            }
            Outgoing::TakeOff(key) => take_off(&connection, shared.subject(&key), limit).await,
            Outgoing::Say(message) => {
                let subject = shared.said.clone();
                connection.publish(subject, message, limit).await
            }
            Outgoing::Goodbye(message, gone) => {
                let subject = shared.said.clone();
                let said = connection.publish(subject, message, limit).await;
                if let Ok(client) = connection.client() {
                    let _ = connection.within(limit, client.flush()).await;
                }
                let _ = gone.send(());
                said
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a word did not reach the board");
        }
    }
}

async fn take_off(
    connection: &NatsConnection,
    subject: String,
    limit: Duration,
) -> Result<(), NatsError> {
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let client = connection.client()?;
    let sent = client.publish_with_headers(subject, headers, Bytes::new());
    connection.within(limit, sent).await
}

/// Keeps a session with the board.
struct SessionKeeper {
    shared: Arc<BoardState>,
    config: FleetConfig,
    name: String,
    news: mpsc::Sender<BoardNews>,
}

impl SessionKeeper {
    async fn run(self) {
        let connection = self.open().await;
        *self.shared.connection.acquire() = Some(connection.clone());
        let mut standing = connection.standing();
        let mut problem = connection.problem();
        // Number of sessions in a row that the server has refused, or that have ended at once.
        let mut failed = 0;
        loop {
            loop {
                tokio::select! {
                    biased;
                    stands = standing.wait_for(|now| now.is_connected) => match stands {
                        Ok(_) => break,
                        Err(_) => return,
                    },
                    Ok(()) = problem.changed() => {}
                }
                // EDGE-8: why it is not reached, once for each reason.
                let reason = problem.borrow_and_update().clone();
                if let Some(reason) = reason
                    && self.news.send(BoardNews::Lost(reason)).await.is_err()
                {
                    return;
                }
            }
            let began = Instant::now();
            let Err(reason) = self.session(&connection, &mut standing).await;
            let has_joined = self.shared.is_joined.swap(false, Ordering::AcqRel);
            if self.news.send(BoardNews::Lost(reason)).await.is_err() {
                return;
            }
            if has_joined && began.elapsed() > AGAIN[1] {
                failed = 0;
            }
            tokio::time::sleep(again(failed)).await;
            failed = failed.saturating_add(1);
        }
    }

    /// Opens the connection, once its files can be used.
    async fn open(&self) -> NatsConnection {
        let client = format!("breakerbox {}", self.name);
        loop {
            match NatsConnection::open(&self.config, &client).await {
                Ok(connection) => return connection,
                Err(error) => {
                    let _ = self.news.send(BoardNews::Lost(error.to_string())).await;
                    tokio::time::sleep(REREAD).await;
                }
            }
        }
    }

    /// One session, from the join to the loss of the connection. Returns the reason of the loss.
    async fn session(
        &self,
        connection: &NatsConnection,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<std::convert::Infallible, String> {
        let number = standing.borrow_and_update().connections;
        let text = |error: NatsError| error.to_string();
        let store = self.bucket(connection).await.map_err(text)?;
        let client = connection.client().map_err(text)?.clone();
        let subscription = client.subscribe(self.shared.said.clone());
        let mut said = connection.within(SETUP, subscription).await.map_err(text)?;
        // FLT-15: own join first, then one watch of all.
        let (joined, own) = self.join(connection, &store).await.map_err(text)?;
        let watch = store.watch_with_history(">");
        let mut words = connection.within(SETUP, watch).await.map_err(text)?;
        self.shared.is_joined.store(true, Ordering::Release);
        self.tell(BoardNews::Reached).await?;
        let mut old = Vec::new();
        let mut is_current = false;
        loop {
            tokio::select! {
                biased;
                changed = standing.changed() => {
                    let now = *standing.borrow_and_update();
                    if changed.is_err() || !now.is_connected || now.connections != number {
                        return Err("the connection is lost".to_owned());
                    }
                }
                message = said.next() => {
                    let message = message.ok_or("the subscription has ended")?;
                    self.tell(BoardNews::Message(message.payload)).await?;
                }
                entry = words.next() => {
                    let entry = entry.ok_or("the watch has ended")?;
                    let entry = entry.map_err(|error| NatsError::of(error).to_string())?;
                    let age = age_of((entry.revision, entry.created), (own, joined));
                    // They come by their revisions, so none is missing once the own join has come, or a
                    // later one in its place. The server's count of those to come can be wrong then.
                    let is_last = !is_current && entry.revision >= own;
                    note_old(&mut old, &entry, age);
                    self.tell(news_of(entry, age)).await?;
                    if is_last {
                        is_current = true;
                        self.tell(BoardNews::Current).await?;
                        self.purge(connection, &store, std::mem::take(&mut old)).await;
                    }
                }
            }
        }
    }

    async fn tell(&self, news: BoardNews) -> Result<(), String> {
        let told = self.news.send(news).await;
        told.map_err(|_| "the child has ended".to_owned())
    }

    /// Returns the bucket, which is made where it is missing.
    async fn bucket(&self, connection: &NatsConnection) -> Result<Store, NatsError> {
        let context = connection.jetstream()?;
        let name = &self.shared.bucket;
        let found = connection.within(SETUP, context.get_key_value(name)).await;
        if found.is_ok() {
            return found;
        }
        // By hand: the client's own way asks for what servers before 2.10 do not tell.
        let config = stream::Config {
            name: format!("KV_{name}"),
            description: Some("the board of a fleet of Breakerbox".to_owned()),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_message_size: MAX_VALUE,
            num_replicas: self.config.bucket_replicas as usize,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..stream::Config::default()
        };
        let made = context.create_stream(config);
        connection.within(SETUP, made).await?;
        connection.within(SETUP, context.get_key_value(name)).await
    }

    /// Writes the join, and returns its time by the server's clock, and its revision.
    async fn join(
        &self,
        connection: &NatsConnection,
        store: &Store,
    ) -> Result<(DateTime, u64), NatsError> {
        let join = BoardWord::Join {
            name: self.name.clone(),
        };
        let key = BoardKey::Join.text();
        let put = store.put(&key, word::write(&join));
        let revision = connection.within(SETUP, put).await?;
        let subject = self.shared.subject(&key);
        // From the bucket's leader: a copy may not have it yet.
        let asked = store.stream.get_last_raw_message_by_subject(&subject);
        let message = connection.within(SETUP, asked).await?;
        Ok((message.time, revision))
    }

    /// Removes words of replicas that are long gone, and the marks of deleted ones.
    async fn purge(&self, connection: &NatsConnection, store: &Store, old: Vec<(String, u64)>) {
        for (key, revision) in old {
            let purge = store.stream.purge().filter(self.shared.subject(&key));
            let purge = purge.sequence(revision + 1);
            let purged = connection.within(SETUP, async { purge.await }).await;
            if let Err(error) = purged {
                tracing::debug!(%error, "an old word stays on the board");
                return;
            }
        }
    }
}

/// Returns the wait before the next try of a session after this number of failures, of it a random
/// half, so that the replicas do not come back in one moment.
fn again(failed: u32) -> Duration {
    // FLT-15: a server that refuses sessions is asked less and less often.
    let longest = (AGAIN[0] * 2_u32.pow(failed.min(10))).min(AGAIN[1]);
    longest.mul_f64(0.5 + crate::nats::random_half())
}

/// Returns the age of a word when this replica joined. Each with its revision and its time by the
/// server's clock.
fn age_of((revision, written): (u64, DateTime), (own, joined): (u64, DateTime)) -> Duration {
    match revision < own {
        true => (joined - written).try_into().unwrap_or(Duration::ZERO),
        // FLT-10: one that arrives live begins now; the server's clock may have been set since the join.
        false => Duration::ZERO,
    }
}

/// Notes a word that can be purged.
fn note_old(old: &mut Vec<(String, u64)>, entry: &Entry, age: Duration) {
    let is_own = matches!(BoardKey::of(&entry.key), Some(BoardKey::Evidence(..)));
    let is_over = entry.operation != Operation::Put || is_own;
    if is_over && age > OLD && old.len() < MAX_PURGED {
        old.push((entry.key.clone(), entry.revision));
    }
}

fn news_of(entry: Entry, age: Duration) -> BoardNews {
    let written = u64::try_from(entry.created.unix_timestamp_nanos()).unwrap_or(0);
    BoardNews::Word {
        written: BoardTime(written),
        value: (entry.operation == Operation::Put).then_some(entry.value),
        key: entry.key,
        revision: entry.revision,
        age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_10_a_live_word_begins_now_though_the_servers_clock_was_set() {
        let at = |seconds| DateTime::from_unix_timestamp(seconds).unwrap();
        let own = (7, at(10_000));
        let age = |revision, seconds| age_of((revision, at(seconds)), own);
        assert_eq!(age(6, 9_990), Duration::from_secs(10));
        assert_eq!(
            age(6, 10_010),
            Duration::ZERO,
            "it was set back before the join"
        );
        assert_eq!(age(8, 10_010), Duration::ZERO);
        assert_eq!(
            age(8, 6_400),
            Duration::ZERO,
            "it was set back after the join"
        );
    }

    #[test]
    fn flt_15_waits_between_tries_of_a_session_grow() {
        for (failed, longest) in [(0, 250), (1, 500), (2, 1_000), (3, 2_000), (99, 2_000)] {
            let longest = Duration::from_millis(longest);
            let wait = again(failed);
            assert!(wait >= longest / 2 && wait <= longest, "{failed}: {wait:?}");
        }
    }
}
