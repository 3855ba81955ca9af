//! One message on its way from its delivery to its fate.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{
    BreakerAfter, Class, DeadReason, Executed, MessageArrival, MessageCallEnd, MessageCallKind,
    MessageFate, MessageNotes, MessageStart, NotedWork, ReturnReason,
};

use super::message::{ORIGIN, OutgoingMessage, QueueMessage};
use super::source::{SourceError, SourceFuture};
use super::state::{ConsumerState, WaitingForQueue};
use super::work::{BrokenMessage, DeadLetterFacts, MessageTerms, WorkAnswer, WorkEnd};
use crate::clock::NotedTime;
use crate::redact::redact;
use crate::supervisor::caught;
use crate::sync::LockExt as _;

/// Wait before the queue is asked again after a failure of its own.
const AGAIN: Duration = Duration::from_millis(250);

/// Number of fetched messages that wait for the begin of their calls.
#[derive(Default)]
pub(super) struct Stage(Cell<u32>);

impl Stage {
    pub(super) fn waiting(&self) -> u32 {
        self.0.get()
    }
}

/// A message that waits for its call; dropped at the latest when it ends.
struct Waiting(Rc<Stage>);

impl Waiting {
    fn begin(stage: &Rc<Stage>) -> Self {
        stage.0.set(stage.0.get() + 1);
        Self(Rc::clone(stage))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get().saturating_sub(1));
    }
}

/// A delivery in the books. Dropped with an open fate, it is booked as interrupted.
struct OpenFate {
    state: Arc<ConsumerState>,
    /// Its place in the queue; `None` while another delivery of the message is in flight here.
    place: Option<String>,
    is_open: bool,
}

impl OpenFate {
    fn begin(state: &Arc<ConsumerState>, message: &QueueMessage) -> Self {
        state.book(|books| books.fetch(message.deliveries <= 1));
        state.carries(true);
        let is_new = state.held.acquire().insert(message.place.clone());
        Self {
            state: Arc::clone(state),
            place: is_new.then(|| message.place.clone()),
            is_open: true,
        }
    }

    fn close(&mut self, change: impl FnOnce(&mut breakerbox_policy::MessageTally)) {
        if std::mem::take(&mut self.is_open) {
            self.state.book(change);
        }
    }
}

impl Drop for OpenFate {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.state.held.acquire().remove(place);
        }
        // MSG-3: the books add up after a crash too.
        self.close(|books| books.give_back(ReturnReason::Interrupted));
        self.state.carries(false);
    }
}

/// Carries one delivery of a message.
pub(super) struct MessageCarrier {
    state: Arc<ConsumerState>,
    message: QueueMessage,
    /// The time of its delivery.
    since: NotedTime,
    fate: OpenFate,
    waiting: Option<Waiting>,
}

impl MessageCarrier {
    pub(super) fn new(
        state: &Arc<ConsumerState>,
        stage: &Rc<Stage>,
        message: QueueMessage,
    ) -> Self {
        Self {
            state: Arc::clone(state),
            fate: OpenFate::begin(state, &message),
            waiting: Some(Waiting::begin(stage)),
            message,
            since: NotedTime::now(),
        }
    }

    /// Carries the message to its fate, and tells the server meanwhile that it is worked on.
    pub(super) async fn carry(self) {
        if self.fate.place.is_none() {
            // An earlier delivery is on its way here, and ends for both.
            return;
        }
        let (state, message) = (Arc::clone(&self.state), self.message.clone());
        let telling = async move {
            // MSG-8: progress each third of the time after which it would be delivered again.
            let third = (state.settings.ack_wait / 3).max(Duration::from_millis(1));
            loop {
                tokio::time::sleep(third).await;
                if let Err(error) = state.source.progress(&message).await {
                    tracing::debug!(%error, "no progress could be told");
                }
            }
        };
        tokio::select! {
            biased;
            () = self.work() => {}
            () = telling => {}
        }
    }

    async fn work(mut self) {
        let work = Arc::clone(&self.state.work);
        let terms = caught(|| work.terms(&self.message)).unwrap_or_else(|panic| {
            let problem = redact(&panic.to_string()).into_owned();
            Err(BrokenMessage(format!("it could not be read: {problem}")))
        });
        let terms = match terms {
            Ok(terms) => terms,
            Err(broken) => {
                // MSG-11: it breaks the rules, so it is no outcome.
                let arrival = self.arrival(&MessageTerms::default(), MessageNotes::default());
                let detail = broken.to_string();
                let dead = (DeadReason::Malformed, Executed::No);
                return self.send_dead_letter(&arrival, dead, detail, None).await;
            }
        };
        let may_repeat = self.state.settings.rules.may_repeat(terms.is_idempotent);
        let notes = match self.message.deliveries {
            // MSG-7: a queue that was restored counts from one again, and only the mark is certain.
            0 | 1 if may_repeat => MessageNotes::default(),
            _ => match self
                .insist(|own| own.state.source.notes(&own.message))
                .await
            {
                Ok(notes) => notes,
                Err(_) => return,
            },
        };
        let arrival = self.arrival(&terms, notes);
        let rules = &self.state.settings.rules;
        let must_mark = match rules.begin(&arrival) {
            MessageStart::Work { mark } => mark,
            MessageStart::Answered => return self.end_answered(&arrival).await,
            MessageStart::Dead(reason) => {
                let executed = match (notes.work, reason) {
                    (NotedWork::Dead(_, executed), _) => executed,
                    (_, DeadReason::Maybe) => Executed::Maybe,
                    // An earlier delivery may have come that far; only marks would tell.
                    _ if may_repeat && arrival.deliveries > 1 => Executed::Maybe,
                    _ => Executed::No,
                };
                let detail = match notes.work {
                    NotedWork::Dead(..) => "its dead letter could not be written before",
                    _ => start_detail(reason),
                };
                let detail = detail.to_owned();
                return self
                    .send_dead_letter(&arrival, (reason, executed), detail, None)
                    .await;
            }
        };
        if must_mark && !self.mark(notes).await {
            return;
        }
        let end = {
            let left = arrival.time_left();
            let calling = Box::pin(async { work.call(&self.message, &terms, left).await });
            let waiting = &mut self.waiting;
            Began { calling, waiting }.await
        };
        self.decide(&terms, &arrival, end).await;
    }

    /// Writes the mark of work that may not be done twice. Returns false if the work is not to begin.
    async fn mark(&self, notes: MessageNotes) -> bool {
        let marked = MessageNotes {
            work: NotedWork::Begun,
            ..notes
        };
        // MSG-7: the mark is there before the work, and is this consumer's alone.
        let marking = self.insist(|own| own.state.source.claim(&own.message, marked));
        if marking.await.is_err() {
            return false;
        }
        if self.since.elapsed() < self.state.settings.ack_wait {
            return true;
        }
        // MSG-7: another consumer may have had a later delivery, and the mark of a message that has
        // ended is dropped after a while.
        let asking = self.insist(|own| own.state.source.is_outstanding(&own.message));
        let is_outstanding = asking.await;
        if let Ok(false) = is_outstanding
            && let Err(error) = self.state.source.drop_notes(&self.message).await
        {
            tracing::debug!(%error, "the mark of a message that has ended is left behind");
        }
        is_outstanding.unwrap_or(false)
    }

    /// Decides about the fate after the call, and brings it about.
    async fn decide(self, terms: &MessageTerms, arrival: &MessageArrival, end: WorkEnd) {
        let state = Arc::clone(&self.state);
        let ended = MessageCallEnd {
            kind: end.ending.kind,
            executed: end.ending.executed,
            executed_by_fallbacks: end.ending.executed_by_fallbacks,
            wait: end.ending.wait,
            breaker: end.ending.breaker,
            // MSG-2: what was rejected without a word has no answer.
            has_answer_subject: terms.answer_subject.is_some()
                && end.answer != WorkAnswer::default(),
        };
        let rules = &state.settings.rules;
        match end.ending.breaker {
            BreakerAfter::Closed => state.note_closed(),
            BreakerAfter::ByProbe if is_failure(end.ending.kind) => {
                state.note_failed_probe(&self.message);
            }
            BreakerAfter::ByProbe | BreakerAfter::NotClosed(_) => {}
        }
        let fate = rules.end(arrival, &ended, &state.work.retry(), &mut fastrand::f64);
        match fate {
            MessageFate::Answer => self.answer(terms, arrival, end.answer).await,
            MessageFate::Dead(reason) => {
                let detail = "its last call ended without an answer".to_owned();
                let executed = match reason {
                    // MSG-7: the dependency's own word, such as a throttle, is not that of a fallback.
                    DeadReason::Maybe => Executed::Maybe,
                    _ => end.ending.executed,
                };
                let dead = (reason, executed);
                self.send_dead_letter(arrival, dead, detail, end.problem)
                    .await;
            }
            MessageFate::Return {
                delay,
                reason,
                notes,
            } => self.give_back(notes, reason, delay).await,
        }
    }

    async fn answer(self, terms: &MessageTerms, arrival: &MessageArrival, answer: WorkAnswer) {
        if let Some(subject) = &terms.answer_subject {
            let answer = OutgoingMessage {
                id: format!("answer:{}", self.message.id),
                subject: subject.clone(),
                headers: self.with_origin(answer.headers),
                payload: answer.payload,
            };
            // MSG-2: first the answer, then the acknowledgement, both confirmed.
            let published = self.insist(|own| own.state.source.publish(&answer)).await;
            if let Err(problem) = published {
                let dead = (DeadReason::Answer, Executed::Yes);
                return self.send_dead_letter(arrival, dead, problem, None).await;
            }
        }
        if !self.may_repeat(arrival) {
            let answered = MessageNotes {
                work: NotedWork::Answered,
                ..arrival.notes
            };
            // MSG-7: a server that is killed may forget the acknowledgement that it confirmed.
            let noting = self.insist(|own| own.state.source.keep_notes(&own.message, answered));
            if let Err(error) = noting.await {
                tracing::debug!(%error, "it is not noted that a message was answered");
            }
        }
        self.end_answered(arrival).await;
    }

    /// Acknowledges the message after the publication of its answer.
    async fn end_answered(mut self, arrival: &MessageArrival) {
        if self.acknowledge(arrival).await {
            self.fate.close(breakerbox_policy::MessageTally::answer);
        }
    }

    fn may_repeat(&self, arrival: &MessageArrival) -> bool {
        let rules = &self.state.settings.rules;
        rules.may_repeat(arrival.is_idempotent)
    }

    /// Adds the header that tells the message apart from one of another queue with the same id.
    fn with_origin(&self, mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(ORIGIN));
        let origin = format!("{}/{}", self.state.name, self.message.place);
        headers.push((ORIGIN.to_owned(), origin));
        headers
    }

    /// Buries the message as a dead letter, then acknowledges it.
    async fn send_dead_letter(
        mut self,
        arrival: &MessageArrival,
        (reason, executed): (DeadReason, Executed),
        detail: String,
        last: Option<String>,
    ) {
        let state = Arc::clone(&self.state);
        let is_failure = reason == DeadReason::Failures;
        let facts = DeadLetterFacts {
            consumer: state.name.to_string(),
            reason,
            executed,
            detail,
            deliveries: arrival.deliveries,
            failures: arrival.notes.failures + u32::from(is_failure),
            crashes: arrival.crashes(),
        };
        let problem = state.work.problem(&facts, last.as_deref());
        let mut headers = self.with_origin(self.message.headers.clone());
        headers.push((
            "breakerbox-subject".to_owned(),
            self.message.subject.clone(),
        ));
        headers.push(("breakerbox-problem".to_owned(), problem));
        let letter = OutgoingMessage {
            id: format!("dead:{}", self.message.id),
            subject: state.settings.dead_letters.clone(),
            headers,
            payload: Arc::clone(&self.message.payload),
        };
        // MSG-6: the dead letter is confirmed, then the message is acknowledged.
        let buried = self.insist(|own| own.state.source.publish(&letter)).await;
        if let Err(problem) = buried {
            state.tell_dead(&self.message.id, reason, Some(problem));
            let mut notes = arrival.notes;
            notes.returns = notes.returns.saturating_add(1);
            // MSG-6: the message keeps its reason, and is not called again.
            notes.work = NotedWork::Dead(reason, executed);
            let delay = state.settings.rules.max_delay;
            return self.give_back(notes, ReturnReason::Failed, delay).await;
        }
        if self.acknowledge(arrival).await {
            self.fate.close(|books| books.dead_letter(reason));
            state.tell_dead(&self.message.id, reason, None);
        }
    }

    async fn give_back(mut self, notes: MessageNotes, reason: ReturnReason, delay: Duration) {
        // A return is told apart from a crash by its notes, so they come first.
        let kept = self.insist(|own| own.state.source.keep_notes(&own.message, notes));
        if kept.await.is_err() {
            return;
        }
        // MSG-4: never without a delay.
        let returned = self.insist(|own| own.state.source.give_back(&own.message, delay));
        if returned.await.is_ok() {
            self.fate.close(|books| books.give_back(reason));
        }
    }

    /// Acknowledges the message, and drops its notes. Returns false if the queue refuses it.
    async fn acknowledge(&self, arrival: &MessageArrival) -> bool {
        let done = self.insist(|own| own.state.source.acknowledge(&own.message));
        if done.await.is_err() {
            return false;
        }
        let has_notes = !self.may_repeat(arrival) || arrival.notes != MessageNotes::default();
        if has_notes && let Err(error) = self.state.source.drop_notes(&self.message).await {
            tracing::debug!(%error, "the notes of a message that has ended are left behind");
        }
        true
    }

    /// Asks the queue until it has done it, or refuses it.
    async fn insist<'a, T>(
        &'a self,
        mut ask: impl FnMut(&'a Self) -> SourceFuture<'a, T>,
    ) -> Result<T, String> {
        let mut waiting = None;
        loop {
            match ask(self).await {
                Ok(done) => return Ok(done),
                Err(SourceError::Refused(problem)) => return Err(problem),
                Err(error @ SourceError::Unavailable(_)) => {
                    waiting.get_or_insert_with(|| WaitingForQueue::begin(&self.state));
                    self.state.note(Some(error.to_string()));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn arrival(&self, terms: &MessageTerms, notes: MessageNotes) -> MessageArrival {
        MessageArrival {
            deliveries: self.message.deliveries,
            notes,
            is_idempotent: terms.is_idempotent,
            age: self.message.age,
            ttl: terms.ttl,
        }
    }
}

fn is_failure(kind: MessageCallKind) -> bool {
    kind == MessageCallKind::Ended(Class::Failure)
}

/// Returns the reason for a dead letter before its call, for people.
fn start_detail(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Maybe => {
            "an earlier consumer began its work and did not tell how it ended; the work is not \
             idempotent"
        }
        DeadReason::Expired => "its time was over before its work could begin",
        DeadReason::Crashes => {
            "too many of its deliveries ended without any word of their consumer"
        }
        _ => "it cannot be worked on",
    }
}

/// A call that counts as begun after its first poll: from then on the bulkhead counts it. A panic in it
/// is its end.
struct Began<'a, F> {
    calling: F,
    waiting: &'a mut Option<Waiting>,
}

impl<F: Future<Output = WorkEnd> + Unpin> Future for Began<'_, F> {
    type Output = WorkEnd;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<WorkEnd> {
        let own = &mut *self;
        // MSG-5: a panic over one message is that message's own, and interrupts no other.
        let polled = caught(|| std::pin::Pin::new(&mut own.calling).poll(context));
        own.waiting.take();
        polled.unwrap_or_else(|panic| {
            let problem = format!("its work panicked: {}", redact(&panic.to_string()));
            std::task::Poll::Ready(WorkEnd::lost(Executed::Maybe, problem))
        })
    }
}
