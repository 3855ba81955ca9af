//! The sidecar with all its dependencies, and the checks after each fault.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use nix::sys::signal::Signal;

use crate::PATIENCE;
use crate::broker::{Broker, count};
use crate::callers::{CALLED, CallCounts, Callers};
use crate::faults::{ChaosFault, SmallDisk};
use crate::service::Service;
use crate::sidecar::{Sidecar, configure, signal_to};

/// Descriptors that may be open beyond those at the beginning, without the connections to services:
/// connections of callers that are just closing.
const SPARE_DESCRIPTORS: usize = 12;
/// Time within which everything is well again: the longest backoff of the configuration is 1 s, a
/// paused machine may take longer.
const WELL_WITHIN: Duration = Duration::from_secs(15);

/// Everything that takes part.
pub(crate) struct Bed {
    pub(crate) web: Service,
    pub(crate) work: Service,
    pub(crate) chat: Service,
    pub(crate) broker: Broker,
    pub(crate) callers: Arc<Callers>,
    pub(crate) sidecar: Sidecar,
    pub(crate) disk: Option<SmallDisk>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) descriptor_limit: usize,
    /// Processes that are stopped.
    pub(crate) stopped: Vec<u32>,
    /// Calls to each dependency that only ask whether it is well.
    asked: [AtomicU64; 3],
    context: Context,
    descriptors: usize,
}

/// Returns the text of a configuration. `more`: of the round of reloads.
fn text(urls: [&str; 4], folder: &Path, round: Option<u32>) -> String {
    let [web, work, chat, nats] = urls;
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp_server.py");
    let breaker = "breaker = { window = { kind = \"consecutive\" }, failure_threshold = 5, \
                   recovery_timeout = \"200ms\", half_open_attempt_limit = 1, \
                   recovery_backoff = { factor = 1.0, max = \"1s\", jitter = 0.0 } }\n\
                   throttle = { max = \"1s\" }\n";
    let places = 32 + round.unwrap_or(0);
    let common = format!(
        "{breaker}timeout = {{ attempt = \"500ms\", first_byte = \"500ms\", idle = \"500ms\", \
         total = \"2s\" }}\nbulkhead = {{ max_concurrent = {places}, max_queue = 64, \
         max_wait = \"500ms\" }}\nretry = {{ max_attempts = 2, backoff = {{ base = \"10ms\", \
         max = \"50ms\" }} }}\n"
    );
    let guest = match round {
        Some(round) if round % 2 == 0 => {
            format!("[dependencies.guest]\nkind = \"http\"\nurl = \"{web}\"\n")
        }
        _ => String::new(),
    };
    let var = folder.join("var");
    let var = var.display();
    format!(
        "[gateway]\naccess_log = \"{var}/access.log\"\n[admin]\nstate = \"{var}/state.json\"\n\
         [recorder]\npath = \"{var}/trace.jsonl\"\nmax_bytes = \"1MB\"\n\
         [reload]\ndebounce = \"20ms\"\n[fleet]\nservers = [\"{nats}\"]\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{web}\"\n{common}\
         [dependencies.work]\nkind = \"http\"\nurl = \"{work}\"\nidempotent = [\"POST\"]\n{common}\
         [dependencies.chat]\nkind = \"model\"\napi = \"openai\"\nurl = \"{chat}\"\n{common}\
         [dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"{tools}\", \"newer\"]\nhang_limit = 2\ntimeout = {{ attempt = \"1s\", total = \"3s\" }}\n\
         workers = {{ backoff = {{ base = \"50ms\", factor = 2.0, max = \"1s\", jitter = 0.0 }} }}\n\
         {breaker}{guest}\
         [consumers.jobs]\ndependency = \"work\"\nstream = \"CALLS\"\nsubject = \"calls.>\"\n\
         dead_letters = \"dead.work\"\nanswers = \"answers.work\"\n\
         ack_wait = \"10s\"\n"
    )
}

impl Bed {
    /// Starts everything; `None` if this machine has no broker.
    pub(crate) async fn start() -> Option<Self> {
        let broker = Broker::start().await?;
        let services = (
            Service::start().await,
            Service::start().await,
            Service::start().await,
        );
        let (web, work, chat) = services;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("var")).unwrap();
        let disk = SmallDisk::mount(&folder.path().join("var"));
        let context = broker.context().await;
        let answers = stream::Config {
            name: "ANSWERS".to_owned(),
            subjects: vec!["answers.>".to_owned()],
            ..Default::default()
        };
        context.get_or_create_stream(answers).await.unwrap();
        let urls = [&web, &work, &chat].map(|service| format!("http://{}", service.address));
        let [a, b, c] = &urls;
        configure(
            folder.path(),
            &text([a, b, c, &broker.url()], folder.path(), None),
        );
        let sidecar = Sidecar::start(folder.path());
        let callers = Callers::start(sidecar.gateway());
        let mut bed = Self {
            web,
            work,
            chat,
            broker,
            callers,
            sidecar,
            disk,
            folder,
            descriptor_limit: 0,
            stopped: Vec::new(),
            asked: Default::default(),
            context,
            descriptors: 0,
        };
        bed.until_well("at the beginning").await;
        tokio::spawn(Arc::clone(&bed.callers).publish(bed.context.clone()));
        bed.callers.go_on();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bed.callers.pause().await;
        bed.descriptors = bed.own_descriptors();
        bed.callers.go_on();
        Some(bed)
    }

    pub(crate) fn configuration(&self, round: Option<u32>) -> String {
        let services = [&self.web, &self.work, &self.chat];
        let urls = services.map(|service| format!("http://{}", service.address));
        let [a, b, c] = &urls;
        text([a, b, c, &self.broker.url()], self.folder.path(), round)
    }

    /// Returns the numbers of connections of the services web, work and chat.
    pub(crate) fn connections(&self) -> [usize; 3] {
        [&self.web, &self.work, &self.chat].map(Service::connections)
    }

    /// Returns the number of the sidecar's open descriptors without its connections to services: their
    /// number follows from the load, up to the size of its pools.
    fn own_descriptors(&self) -> usize {
        let connections: usize = self.connections().iter().sum();
        self.sidecar.descriptors().saturating_sub(connections)
    }

    pub(crate) fn signal_tools(&self, signal: Signal) {
        for id in self.sidecar.children().0 {
            signal_to(id, signal);
        }
    }

    pub(crate) fn counts(&self) -> [CallCounts; 3] {
        [0, 1, 2].map(|at| self.callers.called[at].book.counts())
    }

    /// Waits until each dependency gives three good answers in a row.
    pub(crate) async fn until_well(&self, when: &str) -> Duration {
        let begun = quanta::Instant::now();
        for (at, name) in CALLED.into_iter().enumerate() {
            let mut good = 0;
            while good < 3 {
                self.asked[at].fetch_add(1, Ordering::SeqCst);
                let asked = self.callers.ask(name);
                let asked = tokio::time::timeout(Duration::from_secs(5), asked).await;
                let is_good = matches!(asked, Ok(Ok(true)));
                good = if is_good { good + 1 } else { 0 };
                if !is_good && begun.elapsed() > WELL_WITHIN {
                    let state = self.sidecar.dependency(name).await;
                    panic!(
                        "{when}: {name} is not well after {WELL_WITHIN:?}: {state:#}\n{}",
                        self.log()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        begun.elapsed()
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let begin = log.len().saturating_sub(8_000);
        let begin = (begin..log.len()).find(|at| log.is_char_boundary(*at));
        log[begin.unwrap_or(0)..].to_owned()
    }

    /// Returns the number of times that the breaker of each dependency has opened.
    pub(crate) async fn trips(&self) -> [u64; 3] {
        let mut trips = [0; 3];
        for (at, name) in CALLED.into_iter().enumerate() {
            let state = self.sidecar.dependency(name).await;
            trips[at] = state["totals"]["trips"].as_u64().unwrap();
        }
        trips
    }

    /// Checks that only the breakers of what was at fault have opened.
    pub(crate) fn check_trips(&self, fault: ChaosFault, before: [u64; 3], after: [u64; 3]) {
        for (at, name) in CALLED.into_iter().enumerate() {
            let is_same = before[at] == after[at];
            assert!(
                is_same || fault.may_open(name),
                "{fault:?} has opened the breaker of {name}\n{}",
                self.log()
            );
        }
    }

    /// Checks the callers' own books of the time of a fault.
    pub(crate) fn check_calls(&self, fault: ChaosFault, before: [CallCounts; 3]) {
        for (at, before) in before.into_iter().enumerate() {
            let name = CALLED[at];
            let seen = self.callers.called[at].book.counts().since(before);
            if !fault.may_lose() {
                assert_eq!(
                    seen.lost,
                    0,
                    "{fault:?}: {name} lost calls: {seen:?}\n{}",
                    self.log()
                );
            }
            if fault.hits(name) {
                continue;
            }
            let told = seen.made - seen.left;
            assert!(
                seen.good * 10 >= told * 9 && seen.cut == 0,
                "{fault:?} hurts the callers of {name}: {seen:?}\n{}",
                self.log()
            );
        }
    }

    /// Checks at rest that all books balance, and that nothing is left over.
    pub(crate) async fn check_rest(&self, fault: ChaosFault) {
        self.check_books(fault).await;
        self.check_messages(fault).await;
        let left = async {
            loop {
                let (living, zombies) = self.sidecar.children();
                let descriptors = self.own_descriptors();
                let most = self.descriptors + SPARE_DESCRIPTORS;
                if living.len() == 1 && zombies == 0 && descriptors <= most {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, left).await.is_err() {
            let (living, zombies) = self.sidecar.children();
            let descriptors = self.own_descriptors();
            panic!(
                "after {fault:?}: processes {living:?} and {zombies} dead ones, {descriptors} \
                 descriptors without connections to services, at the beginning {}\n{}",
                self.descriptors,
                self.log()
            );
        }
    }

    async fn check_books(&self, fault: ChaosFault) {
        for name in ["web", "work", "chat", "tools"] {
            let begun = quanta::Instant::now();
            loop {
                let state = self.sidecar.dependency(name).await;
                let totals = &state["totals"];
                let number = |name: &str| totals[name].as_u64().unwrap();
                let ways = ["primary", "fallback", "refused", "failed", "cancelled"];
                let ended: u64 = ways.into_iter().map(number).sum();
                let is_quiet = state["in_flight"] == 0 && state["queued"] == 0;
                if is_quiet && number("submitted") == ended {
                    break;
                }
                // A caller that has left is noticed a moment later, and messages go on.
                if begun.elapsed() > PATIENCE {
                    panic!("after {fault:?}: {name}: {state:#}\n{}", self.log());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        for (called, asked) in self.callers.called.iter().zip(&self.asked) {
            let seen = called.book.counts();
            let ended = seen.good + seen.other + seen.cut + seen.lost + seen.left;
            assert_eq!(seen.made, ended, "{}: {seen:?}", called.name);
            if called.name == "tools" {
                // An MCP server is asked for its tools too.
                continue;
            }
            let state = self.sidecar.dependency(called.name).await;
            let submitted = state["totals"]["submitted"].as_u64().unwrap();
            let made = seen.made + asked.load(Ordering::SeqCst);
            // A caller that leaves at once, or finds no connection, may never have come.
            let least = made - seen.left - seen.lost;
            assert!(
                (least..=made).contains(&submitted),
                "after {fault:?}: {}: {submitted} calls of {least} to {made}",
                called.name
            );
        }
    }

    /// Checks that each message has an answer or became a dead letter.
    async fn check_messages(&self, fault: ChaosFault) {
        let begun = quanta::Instant::now();
        loop {
            let waiting = count(&self.context, "CALLS").await;
            let answers = count(&self.context, "ANSWERS").await;
            let dead = count(&self.context, "dead_work").await.unwrap_or(0);
            let published = self.callers.published.load(Ordering::SeqCst);
            let most = published + self.callers.unsure.load(Ordering::SeqCst);
            if waiting == Some(0)
                && let Some(answers) = answers
                && (published..=most).contains(&(answers + dead))
            {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "after {fault:?}: {waiting:?} messages wait, {answers:?} answers and {dead} dead \
                 letters of {published} to {most}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
