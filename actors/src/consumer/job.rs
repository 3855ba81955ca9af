//! Messages as jobs of an actix actor: the actor makes the call, the consumer does the rest.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Message, Recipient};
use breakerbox_policy::{
    BackoffSettings, BreakerAfter, DependencySettings, Executed, MessageCallKind,
};

use super::ending::{MessageEnding, ask_for_message};
use super::message::QueueMessage;
use super::work::{BrokenMessage, MessageTerms, MessageWork, WorkAnswer, WorkEnd, WorkFuture};
use crate::call_options::CallOptions;
use crate::client::{Client, Readiness};
use crate::dependency::Dependency;
use crate::supervisor::{MailboxIdentity, RefusalWatch};
use crate::sync::LockExt as _;

/// A decoded message on its way to an actor.
#[derive(Debug)]
pub struct Job<M> {
    /// The decoded payload.
    pub message: M,
    /// The message as it came.
    pub raw: QueueMessage,
    /// Time that it still has, if that is limited.
    left: Option<Duration>,
    is_idempotent: bool,
    /// Only kept until the job is dropped.
    _trace: JobTrace,
}

/// The refusal of a mailbox that has dropped a job, or has refused the last one.
type FoundRefusal = Arc<Mutex<Option<RefusalWatch>>>;

/// The part of a job that notes its refusal by the mailbox of an actor that does not run.
#[derive(Debug)]
struct JobTrace {
    mailbox: MailboxIdentity,
    refused: FoundRefusal,
}

impl Drop for JobTrace {
    fn drop(&mut self) {
        // CALL-2: an actor that has taken a job drops it elsewhere.
        if let Some(watch) = RefusalWatch::present(self.mailbox) {
            *self.refused.acquire() = Some(watch);
        }
    }
}

impl<M: Message> Message for Job<M>
where
    M::Result: Send,
{
    type Result = M::Result;
}

/// The end of a job: the result of its call, by which the consumer answers the message, buries it,
/// or gives it back.
#[derive(Debug)]
#[must_use = "the consumer waits for it"]
pub struct Done<R> {
    value: Option<R>,
    ending: MessageEnding,
    problem: String,
}

impl<M> Job<M> {
    /// Makes the call of the job. `request`: made of the decoded message.
    ///
    /// # Panics  As [`Client::ask`].
    /// # Cancel safety   Dropped, the consumer takes the work as one that may have been done.
    pub async fn call<D: Dependency>(
        self,
        client: &Client<D>,
        request: impl FnOnce(M) -> D::Request,
    ) -> Done<D::Response>
    where
        D::Error: fmt::Display,
    {
        let options = CallOptions {
            timeout: self.left,
            idempotent: Some(self.is_idempotent),
            ..CallOptions::default()
        };
        let request = request(self.message);
        let (result, ending) = ask_for_message(client, request, options).await;
        let (value, problem) = match result {
            Ok(answer) => (Some(answer.value), String::new()),
            Err(error) => (None, error.to_string()),
        };
        Done {
            value,
            ending,
            problem,
        }
    }
}

/// Makes the message of a job from a payload.
pub type JobDecoder<M> = Arc<dyn Fn(&[u8]) -> Result<M, String> + Send + Sync>;

/// Makes the payload of an answer from a result.
pub type JobEncoder<R> = Arc<dyn Fn(&R) -> Vec<u8> + Send + Sync>;

/// The work of a consumer of jobs.
pub(crate) struct JobWork<M, R>
where
    M: Message<Result = Done<R>> + Send + 'static,
    R: Send + 'static,
{
    dependency: String,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    settings: Box<dyn Fn() -> Arc<DependencySettings> + Send + Sync>,
    decode: JobDecoder<M>,
    pub(crate) answers: Option<(String, JobEncoder<R>)>,
    pub(crate) is_idempotent: bool,
    pub(crate) to: Option<Recipient<Job<M>>>,
    /// The last refusal by the actor's mailbox.
    refused: FoundRefusal,
}

impl<M: Message<Result = Done<R>> + Send + 'static, R: Send + 'static> JobWork<M, R> {
    /// Work without an actor so far, behind this dependency.
    pub(crate) fn behind<D: Dependency>(client: &Client<D>, decode: JobDecoder<M>) -> Self {
        let (ready, settings) = (client.clone(), client.clone());
        Self {
            dependency: client.name().to_owned(),
            readiness: Box::new(move || ready.readiness(None)),
            settings: Box::new(move || settings.settings()),
            decode,
            answers: None,
            is_idempotent: false,
            to: None,
            refused: FoundRefusal::default(),
        }
    }

    /// Returns the actor, unless it has ended or its supervisor has given it up: its address is the same
    /// then, for it may be restarted.
    fn actor(&self) -> Option<&Recipient<Job<M>>> {
        let is_refused = || {
            let refused = self.refused.acquire();
            refused.as_ref().is_some_and(RefusalWatch::stands)
        };
        let actor = self.to.as_ref().filter(|actor| actor.connected());
        actor.filter(|_| !is_refused())
    }
}

impl<M, R> MessageWork for JobWork<M, R>
where
    M: Message<Result = Done<R>> + Send + 'static,
    R: Send + 'static,
{
    fn dependency(&self) -> String {
        self.dependency.clone()
    }

    fn readiness(&self) -> Readiness {
        match self.actor() {
            Some(_) => (self.readiness)(),
            // MSG-1: no call can begin without the actor that makes it.
            None => Readiness::without_actor(),
        }
    }

    fn retry(&self) -> BackoffSettings {
        (self.settings)().retry.backoff
    }

    fn terms(&self, message: &QueueMessage) -> Result<MessageTerms, BrokenMessage> {
        (self.decode)(&message.payload).map_err(BrokenMessage)?;
        Ok(MessageTerms {
            is_idempotent: self.is_idempotent || message.header("idempotency-key").is_some(),
            ttl: ttl_of(message)?,
            answer_subject: self.answers.as_ref().map(|(subject, _)| subject.clone()),
        })
    }

    fn call<'a>(
        &'a self,
        message: &'a QueueMessage,
        terms: &'a MessageTerms,
        left: Option<Duration>,
    ) -> WorkFuture<'a> {
        Box::pin(async move {
            let Ok(decoded) = (self.decode)(&message.payload) else {
                return lost(Executed::No);
            };
            let Some(actor) = self.actor() else {
                return refused_by_actor();
            };
            let refused = FoundRefusal::default();
            let job = Job {
                message: decoded,
                raw: message.clone(),
                left,
                is_idempotent: terms.is_idempotent,
                _trace: JobTrace {
                    mailbox: MailboxIdentity::of(actor),
                    refused: Arc::clone(&refused),
                },
            };
            match actor.send(job).await {
                Ok(done) => {
                    let encoded = self.answers.as_ref().zip(done.value.as_ref());
                    let payload = encoded.map(|((_, encode), value)| encode(value));
                    WorkEnd {
                        ending: done.ending,
                        answer: WorkAnswer {
                            headers: Vec::new(),
                            payload: payload.unwrap_or_default().into(),
                        },
                        problem: (!done.problem.is_empty()).then_some(done.problem),
                    }
                }
                Err(_) => match refused.acquire().take() {
                    Some(watch) => {
                        // MSG-1: nothing more is fetched until it runs again.
                        *self.refused.acquire() = Some(watch);
                        refused_by_actor()
                    }
                    // The actor ended while it had the job.
                    None => lost(Executed::Maybe),
                },
            }
        })
    }

    fn problem(&self, facts: &super::DeadLetterFacts, last: Option<&str>) -> String {
        let mut facts = facts.clone();
        if let Some(last) = last {
            last.clone_into(&mut facts.detail);
        }
        super::dead_letter_text(&facts)
    }
}

/// Reads the span within which a message has to be executed.
///
/// # Errors  It is not a number of milliseconds.
pub fn ttl_of(message: &QueueMessage) -> Result<Option<Duration>, BrokenMessage> {
    let given = message.header("breakerbox-ttl-ms");
    let span = given.map(|text| text.trim().parse().map(Duration::from_millis));
    span.transpose()
        .map_err(|_| BrokenMessage("breakerbox-ttl-ms is not a number of milliseconds".to_owned()))
}

/// The end of a job for which there was no actor, or none that runs.
fn refused_by_actor() -> WorkEnd {
    // MSG-5: it is not held against the message.
    let (kind, breaker) = (MessageCallKind::Refused, BreakerAfter::NotClosed(None));
    WorkEnd {
        ending: MessageEnding::new(kind, Executed::No, None, breaker),
        answer: WorkAnswer::default(),
        problem: None,
    }
}

/// The end of a job of which the actor has said nothing.
fn lost(executed: Executed) -> WorkEnd {
    let problem = "the actor ended before it had told the end of the job";
    WorkEnd::lost(executed, problem.to_owned())
}
