//! What happened: transitions, restarts, parks, overrides. A bounded history, live streams,
//! listeners and log lines.
//!
//! Nothing on the path of a call comes here, and a listener that panics disturbs nobody.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{BreakerEvent, Cause, ChaosSettings, PauseReason, State, Symptom, Time};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::redact::redact;

/// Events that are kept for whoever comes late.
pub const EVENT_HISTORY: usize = 1024;

/// Something that happened to a dependency or a child.
///
/// # Source  Rule OPS-1 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts up by one from 1; a gap in a stream means that the reader was too slow.
    pub id: u64,
    /// When, since the runtime's start.
    pub at: Time,
    /// The dependency, or the supervised child.
    pub subject: Arc<str>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A breaker moved, or an operator moved it.
    Breaker(BreakerEvent),
    /// A child is running.
    Started {
        /// Which of its lives, from 1.
        incarnation: u64,
    },
    /// A child's life ended.
    Ended {
        /// Which of its lives.
        incarnation: u64,
        /// Why.
        cause: StopCause,
    },
    /// A child will be started again.
    RestartScheduled {
        /// The wait before it.
        after: Duration,
    },
    /// A child is kept down after too many crashes.
    Parked {
        /// The last end.
        cause: StopCause,
    },
    /// A supervisor gave up, and all its children with it.
    GaveUp {
        /// The last end.
        cause: StopCause,
    },
    /// A worker blocks its thread; another one takes its queue over.
    Stuck {
        /// Which of its lives.
        incarnation: u64,
        /// For how long it has not come back.
        for_: Duration,
    },
    /// The first answer by a fallback in an outage.
    FallbackServing {
        /// The fallback.
        fallback: Arc<str>,
        /// Why there was no primary answer.
        why: String,
    },
    /// The dependency answers by itself again: its breaker has closed, or no fallback has answered
    /// for a second.
    FallbackOver {
        /// Fallback answers in between.
        served: u64,
    },
    /// A call crashed workers too often and is refused from now on.
    Quarantined {
        /// Its fingerprint.
        fingerprint: u64,
        /// For how long.
        ttl: Duration,
    },
    /// The dependency asked for less traffic: nobody calls it for a while. Told once for each
    /// pause, and again when it turns out to be a quota; how long it lasts in the end shows in
    /// the status.
    Paused {
        /// Why.
        reason: PauseReason,
        /// For how long.
        for_: Duration,
        /// What the dependency itself asked for.
        hint: Option<Duration>,
    },
    /// The dependency refuses our set-up: a key, a name, a model that is no more. Every call will
    /// fail until somebody sets it right. Told once for each episode.
    Misconfigured {
        /// What it said, where that can be said in general.
        symptom: Option<Symptom>,
    },
    /// It takes our set-up again.
    SetRight,
    /// New settings hold.
    Reloaded {
        /// Who or what brought them.
        by: String,
        /// What has changed, from what to what.
        changed: Vec<String>,
        /// What has changed but waits until the dependency is started anew.
        waits: Vec<String>,
    },
    /// New settings were not taken; the old ones hold.
    ReloadRefused {
        /// Who or what brought them.
        by: String,
        /// What is wrong with them.
        problems: String,
    },
    /// Faults are made on purpose, or no more.
    Chaos {
        /// Who set it.
        by: String,
        /// What is made; `None` when it was taken off.
        settings: Option<ChaosSettings>,
    },
    /// Somebody at the controls gave a command, and it was carried out.
    Operated {
        /// Which command, such as `open`.
        command: &'static str,
        /// Who gave it.
        by: String,
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Time>,
    },
    /// It was taken out of the runtime.
    Removed {
        /// Who did it.
        by: String,
    },
    /// New calls are refused; those in flight may finish.
    Draining,
}

impl EventKind {
    /// The same, without what may be a secret in texts that others wrote (rule SEC-1).
    fn redacted(mut self) -> Self {
        match &mut self {
            Self::FallbackServing { why, .. } => clean(why),
            Self::ReloadRefused { problems, .. } => clean(problems),
            Self::Ended { cause, .. } | Self::Parked { cause } | Self::GaveUp { cause } => {
                clean_cause(cause);
            }
            _ => {}
        }
        self
    }
}

fn clean(text: &mut String) {
    if let Cow::Owned(clean) = redact(text) {
        *text = clean;
    }
}

fn clean_cause(cause: &mut StopCause) {
    match cause {
        StopCause::Failed(error) => clean(error),
        StopCause::Crashed(report) => {
            let mut next = Some(report);
            while let Some(report) = next {
                clean(&mut report.message);
                next = report.also.as_deref_mut();
            }
        }
        StopCause::GaveUp { last, .. } => clean_cause(last),
        StopCause::Normal | StopCause::Shutdown | StopCause::Killed | StopCause::Lost => {}
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breaker(event) => write!(out, "{event}"),
            Self::Started { incarnation } => write!(out, "running (life {incarnation})"),
            Self::Ended { incarnation, cause } => {
                write!(out, "life {incarnation} ended: {cause}")
            }
            Self::RestartScheduled { after } => write!(out, "restart in {after:?}"),
            Self::Parked { cause } => write!(out, "parked after too many crashes; last: {cause}"),
            Self::GaveUp { cause } => write!(out, "gave up after too many restarts; last: {cause}"),
            Self::Stuck { incarnation, for_ } => write!(
                out,
                "life {incarnation} has blocked its thread for {for_:?}; its queue moves to a new one"
            ),
            Self::FallbackServing { fallback, why } => {
                write!(out, "falling back to {fallback}: {why}")
            }
            Self::FallbackOver { served } => {
                write!(
                    out,
                    "answering by itself again after {served} fallback answers"
                )
            }
            Self::Quarantined { fingerprint, ttl } => write!(
                out,
                "calls with fingerprint {fingerprint:#x} are refused for {ttl:?}: they crash workers"
            ),
            Self::Paused { reason, for_, hint } => {
                write!(out, "paused for {for_:?}: {reason}")?;
                match hint {
                    Some(hint) => write!(out, " (it said {hint:?})"),
                    None => write!(out, " (it said not how long)"),
                }
            }
            Self::Misconfigured { symptom } => {
                out.write_str("refuses our set-up; every call fails until it is set right")?;
                match symptom {
                    Some(symptom) => write!(out, " (it said {symptom})"),
                    None => Ok(()),
                }
            }
            Self::SetRight => out.write_str("takes our set-up again"),
            Self::Reloaded { by, changed, waits } => {
                write!(out, "settings changed by {by}: {}", changed.join(", "))?;
                if !waits.is_empty() {
                    write!(out, "; only after a new start: {}", waits.join(", "))?;
                }
                Ok(())
            }
            Self::ReloadRefused { by, problems } => {
                write!(
                    out,
                    "settings of {by} are refused, the old ones hold: {problems}"
                )
            }
            Self::Chaos { by, settings } => match settings {
                Some(settings) => write!(out, "chaos set by {by}: {settings:?}"),
                None => write!(out, "chaos taken off by {by}"),
            },
            Self::Operated {
                command,
                by,
                reason,
                ..
            } => write!(out, "{command} by {by}: {reason}"),
            Self::Removed { by } => write!(out, "removed by {by}"),
            Self::Draining => write!(out, "draining: no new calls"),
        }
    }
}

/// Takes events in and hands them on.
#[derive(Clone)]
pub(crate) struct EventBus {
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

struct Inner {
    last_id: u64,
    history: VecDeque<Event>,
    stream: broadcast::Sender<Event>,
    listeners: Vec<Listener>,
}

impl EventBus {
    pub(crate) fn new(clock: Clock) -> Self {
        let (stream, _) = broadcast::channel(EVENT_HISTORY);
        let inner = Inner {
            last_id: 0,
            history: VecDeque::new(),
            stream,
            listeners: Vec::new(),
        };
        Self {
            clock,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Records what happened, logs it and tells everyone who listens.
    pub(crate) fn emit(&self, subject: &Arc<str>, kind: EventKind) {
        let kind = kind.redacted();
        let (event, listeners) = {
            let mut inner = self.lock();
            inner.last_id += 1;
            let event = Event {
                id: inner.last_id,
                at: self.clock.now(),
                subject: Arc::clone(subject),
                kind,
            };
            if inner.history.len() == EVENT_HISTORY {
                inner.history.pop_front();
            }
            inner.history.push_back(event.clone());
            // No reader is no error.
            let _ = inner.stream.send(event.clone());
            (event, inner.listeners.clone())
        };
        log(&event);
        for listener in listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(&event))).is_err() {
                tracing::error!(
                    event = event.id,
                    "an event listener panicked; the others go on"
                );
            }
        }
    }

    pub(crate) fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.lock().listeners.push(Arc::new(listener));
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.lock().stream.subscribe()
    }

    /// Events with an id above `after`, oldest first.
    pub(crate) fn since(&self, after: u64) -> Vec<Event> {
        let inner = self.lock();
        inner
            .history
            .iter()
            .filter(|event| event.id > after)
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing between lock and unlock panics but an allocation; the data stays whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EventBus").finish_non_exhaustive()
    }
}

/// Writes the log line: WARN for what a person should see, INFO for the rest.
fn log(event: &Event) {
    let subject = &*event.subject;
    let id = event.id;
    match &event.kind {
        EventKind::Breaker(BreakerEvent::Transition {
            from,
            to,
            generation,
            cause,
            retry_after,
            counts,
            ..
        }) => {
            let (calls, failures, slow) = (counts.calls, counts.failures, counts.slow);
            let retry_after_ms = retry_after.map(|wait| wait.as_secs_f64() * 1e3);
            // A recovery's last good probe has no record of its own.
            let probes = match cause {
                Cause::Recovered { successes } => Some(format!("{successes}/{calls}")),
                _ => None,
            };
            if *to == State::Open {
                tracing::warn!(id, dependency = subject, %from, %to, generation, %cause, calls, failures, slow, retry_after_ms, "breaker moved");
            } else {
                tracing::info!(id, dependency = subject, %from, %to, generation, %cause, calls, failures, slow, retry_after_ms, probes, "breaker moved");
            }
        }
        EventKind::Breaker(event) => tracing::info!(id, dependency = subject, "{event}"),
        EventKind::Operated {
            command,
            by,
            reason,
            ..
        } => tracing::warn!(id, dependency = subject, command, by, reason, "operated"),
        EventKind::Ended { incarnation, cause } if !cause.is_normal() => {
            tracing::warn!(id, subject, incarnation, %cause, "child ended");
        }
        EventKind::Parked { .. }
        | EventKind::GaveUp { .. }
        | EventKind::Stuck { .. }
        | EventKind::FallbackServing { .. }
        | EventKind::Paused { .. }
        | EventKind::Misconfigured { .. }
        | EventKind::ReloadRefused { .. }
        | EventKind::Chaos { .. }
        | EventKind::Quarantined { .. } => {
            tracing::warn!(id, subject, "{}", event.kind);
        }
        _ => tracing::info!(id, subject, "{}", event.kind),
    }
}
