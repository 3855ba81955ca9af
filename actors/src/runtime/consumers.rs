//! Consumers of messages as children of the runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use breakerbox_policy::GiveUp;
use breakerbox_policy::supervision::Shutdown;

use super::Runtime;
use crate::client::Client;
use crate::consumer::{
    ConsumerActor, ConsumerHandle, ConsumerSettings, ConsumerState, ConsumerStatus, Done, Job,
    JobWork, MessageSource, MessageWork,
};
use crate::dependency::Dependency;
use crate::error::StartError;
use crate::supervisor::Child;
use crate::sync::LockExt;

/// Time within which the messages in flight may end when a consumer is stopped.
const DRAIN: Duration = Duration::from_secs(30);

impl Runtime {
    /// Starts a consumer of a queue: a supervised child named `consumer:` and its name.
    ///
    /// After a crash it is started again; the messages that it had in flight come again from the
    /// queue.
    ///
    /// # Errors  [`StartError`]: the name is taken, or the runtime is shutting down.
    /// # Cancel safety   Dropped, the consumer may run already.
    /// # Source  Rules MSG-1 to MSG-8 in docs/rules.md.
    pub async fn consume_by(
        &self,
        name: &str,
        settings: ConsumerSettings,
        source: Arc<dyn MessageSource>,
        work: Arc<dyn MessageWork>,
    ) -> Result<ConsumerHandle, StartError> {
        let state = self.new_consumer(name, settings, (source, work));
        self.start_consumer(name, Arc::new(state)).await
    }

    /// Starts a consumer in the place of the one of this name, which runs beside it until its messages
    /// in flight have ended: it fetches no more from now on. The books go on. Without one of this
    /// name it is as [`Runtime::consume_by`].
    ///
    /// # Errors  [`StartError`]; the former one goes on then.
    /// # Cancel safety   Dropped, both may run.
    /// # Source  Rule EDGE-6 in docs/rules.md.
    pub async fn replace_consumer(
        &self,
        name: &str,
        settings: ConsumerSettings,
        source: Arc<dyn MessageSource>,
        work: Arc<dyn MessageWork>,
    ) -> Result<ConsumerHandle, StartError> {
        let former = self.consumer(name);
        let mut state = self.new_consumer(name, settings, (source, work));
        if let Some(former) = &former {
            state = state.after(former.state());
        }
        // Those that drain have their names still.
        let children = self.children().await;
        let is_free = |child: &String| children.iter().all(|one| one.name != *child);
        let mut others = (2_u32..).map(|number| format!("consumer:{name}#{number}"));
        if !is_free(&state.child)
            && let Some(child) = others.find(is_free)
        {
            state.child = child;
        }
        let handle = self.start_consumer(name, Arc::new(state)).await?;
        if let Some(former) = former {
            self.end_consumer(former);
        }
        Ok(handle)
    }

    /// Removes a consumer: it fetches no more, and its messages in flight go on to their ends. Returns
    /// its handle, or `None` if there is none of this name.
    ///
    /// # Panics  On a virtual clock, outside of a tokio runtime.
    pub fn remove_consumer(&self, name: &str) -> Option<ConsumerHandle> {
        let former = self.inner.consumers.acquire().remove(name)?;
        self.end_consumer(former.clone());
        Some(former)
    }

    fn new_consumer(
        &self,
        name: &str,
        settings: ConsumerSettings,
        parts: (Arc<dyn MessageSource>, Arc<dyn MessageWork>),
    ) -> ConsumerState {
        ConsumerState::new(name, settings, parts, self.inner.around.events.clone())
    }

    async fn start_consumer(
        &self,
        name: &str,
        state: Arc<ConsumerState>,
    ) -> Result<ConsumerHandle, StartError> {
        let own = Arc::clone(&state);
        // One that was drained has ended for good.
        let child = Child::transient(state.child.clone(), move || {
            ConsumerActor::new(Arc::clone(&own))
        });
        let child = child.give_up(GiveUp::Park);
        self.supervise(child.shutdown(Shutdown::Within(DRAIN)))
            .await?;
        let handle = ConsumerHandle::of(state);
        let mut consumers = self.inner.consumers.acquire();
        consumers.insert(name.to_owned(), handle.clone());
        Ok(handle)
    }

    /// Drains a consumer and removes its child, without waiting.
    fn end_consumer(&self, former: ConsumerHandle) {
        former.drain();
        let root = self.root();
        let end = async move {
            // Its messages come again if they take longer.
            let _ = tokio::time::timeout(DRAIN, former.drained()).await;
            let child = &former.state().child;
            // At the end of the runtime it is gone already.
            if root.terminate(child).await.is_ok() {
                let _ = root.delete(child).await;
            }
        };
        let threads = &self.inner.around.threads;
        if threads.are_apart() {
            // The caller's own thread may have no tokio runtime, or one that ends earlier. It fails only
            // when the supervisors are gone, and the consumer with them.
            let _ = threads.control().spawn(|| end);
        } else {
            tokio::spawn(end);
        }
    }

    /// Returns the present figures of the consumers, by name.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        let consumers = self.inner.consumers.acquire();
        consumers.values().map(ConsumerHandle::status).collect()
    }

    /// Returns the handle of a consumer.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Option<ConsumerHandle> {
        self.inner.consumers.acquire().get(name).cloned()
    }
}

/// A consumer of jobs that is not started yet.
#[must_use = "nothing is fetched before `to`"]
pub struct JobConsumer {
    runtime: Runtime,
    name: String,
    source: Arc<dyn MessageSource>,
    settings: ConsumerSettings,
}

/// A consumer of jobs with a decoder and a limit.
#[must_use = "nothing is fetched before `to`"]
pub struct LimitedJobs<M, R>
where
    M: Message<Result = Done<R>> + Send + 'static,
    R: Send + 'static,
{
    consumer: JobConsumer,
    work: JobWork<M, R>,
}

impl Runtime {
    /// Begins the description of a consumer of jobs for an actix actor. Its dead letters go to
    /// `dead.` and its name, unless its settings name another subject.
    pub fn consume(&self, name: &str, source: impl MessageSource) -> JobConsumer {
        JobConsumer {
            runtime: self.clone(),
            name: name.to_owned(),
            source: Arc::new(source),
            settings: ConsumerSettings::new(format!("dead.{name}")),
        }
    }
}

impl JobConsumer {
    /// Sets its settings.
    pub fn settings(mut self, settings: ConsumerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the dependency that the actor calls: while no call of it could begin, nothing is
    /// fetched. `decode`: makes a job from a payload; an error makes a dead letter.
    pub fn decode<D: Dependency, M: Message<Result = Done<D::Response>> + Send + 'static>(
        self,
        client: &Client<D>,
        decode: impl Fn(&[u8]) -> Result<M, String> + Send + Sync + 'static,
    ) -> LimitedJobs<M, D::Response> {
        LimitedJobs {
            consumer: self,
            work: JobWork::behind(client, Arc::new(decode)),
        }
    }
}

impl<M, R> LimitedJobs<M, R>
where
    M: Message<Result = Done<R>> + Send + 'static,
    R: Send + 'static,
{
    /// Publishes each answer to this subject. `encode`: makes its payload. Without it the
    /// acknowledgement is the answer.
    pub fn answers(
        mut self,
        subject: impl Into<String>,
        encode: impl Fn(&R) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.work.answers = Some((subject.into(), Arc::new(encode)));
        self
    }

    /// Publishes no answers: the acknowledgement is the answer, which is the default.
    pub fn without_answers(mut self) -> Self {
        self.work.answers = None;
        self
    }

    /// Permits to do the work of each message twice. Without it only a message with the header
    /// `idempotency-key` is done again after a failure or a crash (rule MSG-7).
    pub fn idempotent(mut self) -> Self {
        self.work.is_idempotent = true;
        self
    }

    /// Starts the consumer: its jobs go to this actor. Nothing is fetched any more once the actor has
    /// ended. One that the runtime supervises is started again, and has the same address.
    ///
    /// # Errors  As [`Runtime::consume_by`].
    pub async fn to(self, recipient: Recipient<Job<M>>) -> Result<ConsumerHandle, StartError> {
        let Self { consumer, mut work } = self;
        work.to = Some(recipient);
        let JobConsumer {
            runtime,
            name,
            source,
            settings,
        } = consumer;
        runtime
            .consume_by(&name, settings, source, Arc::new(work))
            .await
    }
}

impl fmt::Debug for JobConsumer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JobConsumer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<M: Message<Result = Done<R>> + Send + 'static, R: Send + 'static> fmt::Debug
    for LimitedJobs<M, R>
{
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(out)
    }
}
