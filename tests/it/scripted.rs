//! A dependency with requests that script its behavior, and one client: the fixture of the tests
//! of calls.

use std::num::NonZeroU32;
use std::time::Duration;

use actix::MailboxError;
use breakerbox_actors::testing::{Reaction, Script, Scripted, ScriptedError, TestRuntime};
use breakerbox_actors::{Answer, Call, CallError, Client, DependencyStatus, FallbackRule};
use breakerbox_policy::{Class, DependencySettings, State};

/// The behavior that a request asks of the dependency.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Do {
    Answer(u32),
    Fail,
    /// Fails with an error of this class.
    End(Class),
    /// Fails with this error.
    Error(ScriptedError),
    After(Duration, Box<Do>),
    Hang,
    Panic,
}

impl Do {
    pub(crate) fn after(self, millis: u64) -> Self {
        Self::After(ms(millis), Box::new(self))
    }

    pub(crate) fn reaction(self) -> Reaction<u32> {
        match self {
            Self::Answer(value) => Reaction::Answer(value),
            Self::Fail => Reaction::Fail(refused_connection()),
            Self::End(class) => Reaction::Fail(ScriptedError::new(class, "scripted")),
            Self::Error(error) => Reaction::Fail(error),
            Self::After(wait, next) => next.reaction().after(wait),
            Self::Hang => Reaction::Hang,
            Self::Panic => Reaction::Panic("told to"),
        }
    }
}

pub(crate) type Dep = Scripted<Do, u32>;
pub(crate) type Error = CallError<ScriptedError>;
pub(crate) type Asked = Result<Answer<u32>, Error>;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// The error of [`Do::Fail`].
pub(crate) fn refused_connection() -> ScriptedError {
    ScriptedError::failure("ConnectionError")
}

/// Configures a breaker that opens after so many failures, for so long.
pub(crate) fn opens_after(
    failures: u32,
    recovery_timeout: Duration,
) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        settings.breaker.failure_threshold = Some(nonzero(failures));
        settings.breaker.open.base = recovery_timeout;
    }
}

/// A dependency `dep` that follows its requests, with its client and its runtime.
pub(crate) struct Bench {
    pub(crate) runtime: TestRuntime,
    pub(crate) client: Client<Dep>,
    pub(crate) script: Script<Do, u32>,
}

impl Bench {
    pub(crate) async fn start(configure: impl FnOnce(&mut DependencySettings)) -> Self {
        Self::with_fallbacks(configure, Vec::new()).await
    }

    pub(crate) async fn with_fallbacks(
        configure: impl FnOnce(&mut DependencySettings),
        rules: Vec<FallbackRule<Dep>>,
    ) -> Self {
        Self::on(TestRuntime::start().await, configure, rules).await
    }

    /// As [`Bench::with_fallbacks`], in a given runtime.
    pub(crate) async fn on(
        runtime: TestRuntime,
        configure: impl FnOnce(&mut DependencySettings),
        rules: Vec<FallbackRule<Dep>>,
    ) -> Self {
        let script = Script::new(|told: Do, _| told.reaction());
        let client = start(&runtime, "dep", &script, configure, rules).await;
        Self {
            runtime,
            client,
            script,
        }
    }

    pub(crate) async fn ask(&self, told: Do) -> Asked {
        self.client.ask(told).await
    }

    /// The same call, sent to the breaker actor.
    pub(crate) async fn send(&self, told: Do) -> Result<Asked, MailboxError> {
        self.client.breaker().send(Call::new(told)).await
    }

    pub(crate) fn status(&self) -> DependencyStatus {
        self.client.status()
    }

    pub(crate) fn state(&self) -> State {
        self.status().state
    }

    /// Number of failures in the window.
    pub(crate) fn failures(&self) -> u64 {
        self.status().window.failures
    }

    /// Fails calls until the breaker opens.
    pub(crate) async fn fail_until_open(&self) {
        while self.state() == State::Closed {
            self.ask(Do::Fail).await.expect_err("it fails");
        }
    }

    pub(crate) async fn finish(self) {
        self.runtime.finish().await;
    }
}

/// Starts a further dependency.
pub(crate) async fn start(
    runtime: &TestRuntime,
    name: &str,
    script: &Script<Do, u32>,
    configure: impl FnOnce(&mut DependencySettings),
    rules: Vec<FallbackRule<Dep>>,
) -> Client<Dep> {
    let script = script.clone();
    let mut builder = runtime
        .dependency(name)
        .configure(configure)
        .workers(move || script.dependency());
    for rule in rules {
        builder = builder.fallback_rule(rule);
    }
    builder.start().await.expect("it starts")
}

/// Advances virtual time.
pub(crate) async fn pass(millis: u64) {
    tokio::time::sleep(ms(millis)).await;
}

/// Lets every other task of this thread run until it waits; no time passes.
pub(crate) async fn let_others_run() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}
