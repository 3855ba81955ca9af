//! Users' actors for the tests: they follow their messages, and log their callbacks.

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorContext, Context, Handler, Message, Running};
use breakerbox::end_with;
use breakerbox_policy::supervision::StopCause;

/// A log of callbacks in order, shared by the actors and the test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.lock().push(line.into());
    }

    /// Returns everything so far, and empties the log.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lock())
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lock().iter().filter(|known| *known == line).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reaction of a probe to a message.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "u32")]
pub(crate) enum Behave {
    /// Answers with this number.
    Answer(u32),
    /// Panics.
    Panic,
    /// Answers, and stops by itself.
    Stop,
    /// Answers, and reports itself as failed.
    Fail,
    /// Answers, and refuses later requests to stop.
    RefuseToStop,
}

/// A user's actor that counts the messages of its incarnation and logs its callbacks.
pub(crate) struct Probe {
    name: &'static str,
    log: Log,
    handled: u32,
    refuses: bool,
    /// Panics again when it is dropped after a panic.
    pub(crate) panics_in_drop: bool,
}

impl Probe {
    pub(crate) fn new(name: &'static str, log: &Log) -> Self {
        log.note(format!("{name} made"));
        Self {
            name,
            log: log.clone(),
            handled: 0,
            refuses: false,
            panics_in_drop: false,
        }
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.log.note(format!("{} started", self.name));
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.refuses {
            Running::Continue
        } else {
            Running::Stop
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.log.note(format!("{} stopped", self.name));
    }
}

impl Handler<Behave> for Probe {
    type Result = u32;

    fn handle(&mut self, message: Behave, ctx: &mut Context<Self>) -> u32 {
        self.handled += 1;
        match message {
            Behave::Answer(number) => {
                self.log.note(format!("{} answers {number}", self.name));
                return number;
            }
            Behave::Panic => panic!("{} was told to panic", self.name),
            Behave::Stop => ctx.stop(),
            Behave::Fail => end_with(ctx, StopCause::Failed("told to fail".into())),
            Behave::RefuseToStop => self.refuses = true,
        }
        self.handled
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.log.note(format!("{} dropped", self.name));
        assert!(
            !self.panics_in_drop || self.handled == 0,
            "{} panics in drop",
            self.name
        );
    }
}
