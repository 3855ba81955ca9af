//! Events: transitions, restarts, parks, overrides. A bounded history, live streams, listeners and
//! log lines.
//!
//! No event is emitted on the path of a call, and a listener that panics affects no other part.

mod bus;
mod fleet;
mod history;
mod listeners;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::supervision::StopCause;
use breakerbox_policy::{
    AnswerCounts, BreakerCause, BreakerEvent, ChaosSettings, CommandSource, DeadReason,
    HangFigures, PauseReason, RoundedDuration, State, Symptom, Time,
};

pub(crate) use bus::EventBus;
pub use listeners::EventListener;

use crate::consumer_pause::ConsumerPause;
use crate::printable::printable;
use crate::redact::redact;

/// Number of past events kept for late readers.
pub const EVENT_HISTORY: usize = 1024;

/// Number of older events of operators that are kept beside them: commands, overrides, reloads,
/// removals, chaos, and workers that are parked for good. Traffic of callers cannot remove them from the history.
pub const OPERATOR_EVENT_HISTORY: usize = 256;

/// An event of a dependency or a child.
///
/// # Source  Rule OPS-1 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts up by one from 1. A gap in a stream means that the reader was too slow.
    pub id: u64,
    /// Time of the event, since the runtime's start.
    pub at: Time,
    /// The dependency, or the supervised child.
    pub subject: Arc<str>,
    /// The kind of event.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A breaker changed state, by itself or by an operator.
    Breaker(BreakerEvent),
    /// A child is running.
    Started {
        /// The number of the incarnation, from 1.
        incarnation: u64,
    },
    /// A child's incarnation ended.
    Ended {
        /// The number of the incarnation.
        incarnation: u64,
        /// The cause of its end.
        cause: StopCause,
    },
    /// A child will be started again.
    RestartScheduled {
        /// The wait before it.
        after: Duration,
    },
    /// A child is parked after too many crashes.
    Parked {
        /// The cause of the last end.
        cause: StopCause,
        /// True if it is started again after each backoff all the same, by `give_up = "retry"`.
        is_retried: bool,
    },
    /// A supervisor gave up; all its children ended with it.
    GaveUp {
        /// The cause of the last end.
        cause: StopCause,
    },
    /// A worker blocks its thread; another worker takes over its queue.
    Stuck {
        /// The number of the incarnation.
        incarnation: u64,
        /// Time since the worker last returned.
        for_: Duration,
    },
    /// The first answer by a fallback in an outage.
    FallbackServing {
        /// The fallback's name.
        fallback: Arc<str>,
        /// The reason why there was no primary answer.
        why: String,
    },
    /// The dependency itself answers again: its breaker has closed, or no fallback has answered for
    /// a second.
    FallbackOver {
        /// Number of fallback answers in between.
        served: u64,
    },
    /// Calls with this fingerprint crashed workers too often and are refused from now on.
    Quarantined {
        /// The fingerprint of the calls.
        fingerprint: u64,
        /// Duration of the quarantine.
        ttl: Duration,
    },
    /// The dependency asked for less traffic and is not called for a while. Emitted once for each
    /// pause, and again if the pause turns out to be a quota. The status shows the final duration.
    Paused {
        /// The reason for the pause.
        reason: PauseReason,
        /// Duration of the pause.
        for_: Duration,
        /// The duration that the dependency itself asked for.
        hint: Option<Duration>,
        /// The replica of the fleet that was asked; `None` for this one.
        by: Option<Arc<str>>,
    },
    /// The breaker opened, and the dependency had asked for a longer wait than `throttle.max`.
    HintCut {
        /// The wait that it asked for.
        asked: Duration,
        /// The wait that counts.
        believed: Duration,
    },
    /// The dependency refuses our set-up: a key, a name, a model that does not exist. Every call
    /// will fail until an operator corrects it. Emitted once for each episode.
    Misconfigured {
        /// The symptom, if it is one of the general ones.
        symptom: Option<Symptom>,
    },
    /// The dependency accepts our set-up again.
    SetRight,
    /// The dependency answers again after its quota was used up.
    QuotaBack,
    /// The breaker of a key is no longer watched, though it was not closed, or a quota of the key was
    /// used up: no call has come for the key, or others needed its room.
    KeyForgotten {
        /// State of the breaker.
        state: State,
    },
    /// Too large a share of the calls get errors, although no breaker is open.
    ErrorShare {
        /// Calls with an error in the last seconds.
        errors: u64,
        /// Calls that got an answer or an error in the same time.
        calls: u64,
        /// True if half of them or more are errors.
        is_down: bool,
    },
    /// The share of errors is below its limit again.
    ErrorsOver,
    /// Callers give up after a wait, and no call is answered meanwhile.
    NoAnswers {
        /// The callers, and their shortest wait.
        figures: HangFigures,
    },
    /// Calls are answered again, or no caller has given up lately.
    NoAnswersOver,
    /// New settings are in effect.
    Reloaded {
        /// The origin of the settings.
        by: String,
        /// The changed settings, with old and new values.
        changed: Vec<String>,
        /// The changes that take effect only when the dependency is started again.
        waits: Vec<String>,
    },
    /// A whole configuration was applied by the program that follows it.
    ReloadApplied {
        /// The origin of the settings.
        by: String,
        /// Its effects.
        report: AppliedReload,
    },
    /// New settings were refused; the old ones stay in effect.
    ReloadRefused {
        /// The origin of the settings.
        by: String,
        /// The errors in the settings.
        problems: String,
    },
    /// Fault injection was switched on or off.
    Chaos {
        /// The author of the change.
        by: String,
        /// The faults to inject; `None` if switched off.
        settings: Option<ChaosSettings>,
    },
    /// An operator gave a command, and it was carried out.
    Operated {
        /// The command's name, such as `open`.
        command: &'static str,
        /// The author of the command.
        by: String,
        /// The reason given.
        reason: String,
        /// Time at which the command's effect ends by itself.
        until: Option<Time>,
    },
    /// A dependency began under an operator's order that was given before its start.
    OrderRestored {
        /// The command's name, such as `open`.
        command: &'static str,
        /// The author of the command.
        by: String,
        /// The reason given.
        reason: String,
        /// Time at which the order ends by itself.
        until: Option<Time>,
    },
    /// The dependency was removed from the runtime.
    Removed {
        /// The author of the removal.
        by: String,
    },
    /// New calls are refused; those in flight may finish.
    Draining,
    /// A consumer of messages fetches nothing for now.
    ConsumerPaused {
        /// The consumer.
        consumer: Arc<str>,
        /// The reason.
        reason: ConsumerPause,
    },
    /// A consumer of messages fetches again.
    ConsumerResumed {
        /// The consumer.
        consumer: Arc<str>,
    },
    /// A message became a dead letter, or could not be buried as one.
    DeadLettered {
        /// The consumer.
        consumer: Arc<str>,
        /// The message's id.
        id: String,
        /// The reason for the dead letter.
        reason: DeadReason,
        /// The reason why the queue refuses the dead letter; the message is tried again later.
        refused: Option<String>,
    },
    /// One message has failed as several probes of an open breaker: it may be what keeps it open.
    PoisonSuspected {
        /// The consumer.
        consumer: Arc<str>,
        /// The message's id.
        id: String,
        /// Its place in the queue.
        place: String,
        /// Number of probes that it has failed as.
        probes: u32,
    },
    /// The fleet's board is reached. The subject is the fleet's child.
    FleetJoined {
        /// Name of the fleet.
        fleet: String,
    },
    /// The fleet's board is reached no more: each replica decides alone.
    FleetLost {
        /// Name of the fleet.
        fleet: String,
        /// Reason.
        reason: String,
    },
    /// The breaker opened, or closed, with the help of other replicas' words.
    Adopted {
        /// `confirm`, `quorum`, `any` or `verdict`.
        how: &'static str,
        /// The replicas that said so.
        by: String,
        /// Number of these.
        replicas: u32,
        /// Number of replicas that call the dependency.
        of: u32,
    },
    /// The breaker stays open because another replica's probe failed.
    Held {
        /// The replica.
        by: String,
        /// Time for which it stays open.
        for_: Duration,
    },
    /// This replica's verdict came too late: another one holds the lease to probe.
    Fenced {
        /// The other replica, if it is known.
        by: String,
    },
}

/// The effects of a new configuration on the dependencies, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AppliedReload {
    /// They went on, perhaps with other settings.
    pub kept: Vec<String>,
    /// They were started anew beside their former selves, with their state and counters.
    pub restarted: Vec<String>,
    /// They were added.
    pub added: Vec<String>,
    /// They were removed; calls in flight may still finish.
    pub removed: Vec<String>,
    /// They could not be started. If they ran before, they go on as they were.
    pub failed: Vec<String>,
}

impl fmt::Display for AppliedReload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("kept", &self.kept),
            ("restarted", &self.restarted),
            ("added", &self.added),
            ("removed", &self.removed),
            ("failed", &self.failed),
        ];
        let mut separator = "";
        for (what, names) in parts {
            if !names.is_empty() {
                write!(out, "{separator}{what} {}", names.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

impl EventKind {
    fn write_paused(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Paused {
            reason,
            for_,
            hint,
            by,
        } = self
        {
            write_pause(out, *reason, *for_, *hint)?;
            if let Some(by) = by {
                write!(out, ", told by {by}")?;
            }
        }
        Ok(())
    }

    /// Returns true for a question to the fleet, which is no event for others.
    const fn is_quiet(&self) -> bool {
        matches!(self, Self::Breaker(BreakerEvent::ProbeDue { .. }))
    }

    /// Returns true for events that only an operator, the configuration or a supervisor causes.
    fn is_operational(&self) -> bool {
        match self {
            Self::Breaker(event) => matches!(
                event,
                BreakerEvent::Overridden {
                    by: CommandSource::Operator | CommandSource::Configuration,
                    ..
                } | BreakerEvent::OverrideRemoved {
                    by: CommandSource::Operator | CommandSource::Configuration,
                    ..
                } | BreakerEvent::Transition {
                    cause: BreakerCause::Commanded(_),
                    ..
                }
            ),
            // A worker that is tried for ever may be told so again and again.
            Self::Parked { is_retried, .. } => !is_retried,
            Self::GaveUp { .. }
            | Self::Reloaded { .. }
            | Self::ReloadRefused { .. }
            | Self::Chaos { .. }
            | Self::Operated { .. }
            | Self::OrderRestored { .. }
            | Self::Removed { .. }
            | Self::Draining => true,
            _ => false,
        }
    }

    /// Returns the event with possible secrets masked in texts from other parties (rule SEC-1).
    fn redacted(mut self) -> Self {
        match &mut self {
            Self::FallbackServing { why, .. } => clean(why),
            Self::ReloadRefused { problems, .. } => clean(problems),
            Self::FleetLost { reason, .. } => clean(reason),
            Self::Ended { cause, .. } | Self::Parked { cause, .. } | Self::GaveUp { cause } => {
                cause.visit_texts(&mut clean);
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

/// Writes a pause, with the hint of the dependency and the part of it that counts.
fn write_pause(
    out: &mut fmt::Formatter<'_>,
    reason: PauseReason,
    for_: Duration,
    hint: Option<Duration>,
) -> fmt::Result {
    let pause = RoundedDuration(for_);
    write!(out, "paused for {pause}: {reason}")?;
    match hint {
        Some(hint) if hint > for_ => {
            let hint = RoundedDuration(hint);
            write!(out, " (it asked for {hint}, believed {pause})")
        }
        Some(hint) => write!(out, " (it asked for {})", RoundedDuration(hint)),
        None => out.write_str(" (it named no time)"),
    }
}

fn write_error_share(out: &mut fmt::Formatter<'_>, errors: u64, calls: u64) -> fmt::Result {
    let counts = AnswerCounts {
        own: calls.saturating_sub(errors),
        by_fallback: 0,
        errors,
    };
    write!(out, "{counts} in the last 30 s")
}

fn parked_words(is_retried: bool) -> &'static str {
    if is_retried {
        "down after too many crashes, and started again after each backoff"
    } else {
        "parked after too many crashes"
    }
}

impl EventKind {
    /// Writes a command of an operator or of the program.
    fn write_command(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chaos { by, settings } => match settings {
                Some(settings) => write!(out, "chaos set by {by}: {settings}"),
                None => write!(out, "chaos removed by {by}"),
            },
            Self::Operated {
                command,
                by,
                reason,
                ..
            } => write!(out, "{command} by {by}: {reason}"),
            Self::OrderRestored {
                command,
                by,
                reason,
                ..
            } => write!(out, "{command} by {by} holds after the start too: {reason}"),
            // The other kinds are no commands.
            _ => Ok(()),
        }
    }
}

impl EventKind {
    /// Writes an event of a consumer.
    fn write_consumer(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsumerPaused { consumer, reason } => {
                write!(out, "consumer {consumer} fetches nothing: {reason}")
            }
            Self::ConsumerResumed { consumer } => write!(out, "consumer {consumer} fetches again"),
            Self::DeadLettered {
                consumer,
                id,
                reason,
                refused,
            } => {
                let id = printable(id);
                write!(out, "consumer {consumer} buried message {id} ({reason})")?;
                match refused {
                    Some(problem) => write!(out, ", and the queue refuses the letter: {problem}"),
                    None => Ok(()),
                }
            }
            Self::PoisonSuspected {
                consumer,
                id,
                place,
                probes,
            } => {
                let (id, place) = (printable(id), printable(place));
                write!(
                    out,
                    "message {id} of consumer {consumer}, at {place} of its queue, has failed as {probes} \
                     probes: it may be what keeps the breaker open"
                )
            }
            // The other kinds are no events of a consumer.
            _ => Ok(()),
        }
    }
}

fn write_forgotten(out: &mut fmt::Formatter<'_>, state: State) -> fmt::Result {
    let what = "no longer watched: no call came for this key";
    write!(out, "{what}; it was {state}")
}

impl fmt::Display for EventKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breaker(event) => write!(out, "{event}"),
            Self::Started { incarnation } => write!(out, "running (incarnation {incarnation})"),
            Self::Ended { incarnation, cause } => {
                write!(out, "incarnation {incarnation} ended: {cause}")
            }
            Self::RestartScheduled { after } => {
                write!(out, "restart in {}", RoundedDuration(*after))
            }
            Self::Parked { cause, is_retried } => {
                write!(out, "{}; last: {cause}", parked_words(*is_retried))
            }
            Self::GaveUp { cause } => write!(out, "gave up after too many restarts; last: {cause}"),
            Self::Stuck { incarnation, for_ } => write!(
                out,
                "incarnation {incarnation} has blocked its thread for {}; its queue moves to a new one",
                RoundedDuration(*for_)
            ),
            Self::FallbackServing { fallback, why } => {
                write!(out, "falling back to {fallback}: {why}")
            }
            Self::FallbackOver { served } => write!(
                out,
                "answering by itself again after {served} fallback answers"
            ),
            Self::Quarantined { fingerprint, ttl } => write!(
                out,
                "calls with fingerprint {fingerprint:#x} are refused for {}: they crash workers",
                RoundedDuration(*ttl)
            ),
            Self::Paused { .. } => self.write_paused(out),
            Self::HintCut { asked, believed } => write!(
                out,
                "it asked for {}, believed {}",
                RoundedDuration(*asked),
                RoundedDuration(*believed)
            ),
            Self::Misconfigured { symptom } => {
                out.write_str("refuses our configuration; every call fails until it is corrected")?;
                match symptom {
                    Some(symptom) => write!(out, " (it answered {symptom})"),
                    None => Ok(()),
                }
            }
            Self::SetRight => out.write_str("accepts our configuration again"),
            Self::QuotaBack => out.write_str("answers again; its quota had been used up"),
            Self::KeyForgotten { state } => write_forgotten(out, *state),
            Self::ErrorShare { errors, calls, .. } => write_error_share(out, *errors, *calls),
            Self::ErrorsOver => out.write_str("the calls get few errors again"),
            Self::NoAnswers { figures } => write!(out, "it hangs: {figures}"),
            Self::NoAnswersOver => out.write_str("no further caller gave up without an answer"),
            Self::Reloaded { by, changed, waits } => {
                write!(out, "settings changed by {by}: {}", changed.join(", "))?;
                if !waits.is_empty() {
                    let separator = if changed.is_empty() { "" } else { "; " };
                    let waits = waits.join(", ");
                    write!(out, "{separator}only after a new start: {waits}")?;
                }
                Ok(())
            }
            Self::ReloadApplied { by, report } => {
                write!(out, "configuration of {by} applied: {report}")
            }
            Self::ReloadRefused { by, problems } => write!(
                out,
                "settings of {by} are refused, the old ones stay in force: {problems}"
            ),
            Self::Chaos { .. } | Self::Operated { .. } | Self::OrderRestored { .. } => {
                self.write_command(out)
            }
            Self::Removed { by } => write!(out, "removed by {by}"),
            Self::Draining => write!(out, "draining: no new calls"),
            Self::ConsumerPaused { .. }
            | Self::ConsumerResumed { .. }
            | Self::DeadLettered { .. }
            | Self::PoisonSuspected { .. } => self.write_consumer(out),
            _ => self.write_fleet(out),
        }
    }
}
