//! How a call can end without a primary answer, and what that means for the caller.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Executed, PauseReason, RefusalState};

use crate::notice::{Notice, SharedNotice};
use crate::site::{UnknownName, list};

/// Why a call got no primary answer.
///
/// Every variant tells whether the dependency may have done the work ([`CallError::executed`]),
/// when to try again ([`CallError::retry_after`]) and whose fault it is ([`CallError::fault`]).
///
/// # Source  Rules CALL-2 and BRK-11 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
// With a tag of one byte and small fields beside it, each move of a result waited for the last one:
// that was a fifth of a call that works.
#[repr(u64)]
pub enum CallError<E> {
    /// The dependency's own error.
    Failed {
        /// Its name.
        dependency: Arc<str>,
        /// What it said.
        error: E,
        /// Whether it may have done the work, by its own word
        /// ([`Verdict::executed`](crate::Verdict::executed)).
        executed: Executed,
    },
    /// The breaker does not let calls through.
    Open(Refused),
    /// Too many calls are in flight, and the queue is full or the wait was too long.
    Overloaded {
        /// Its name.
        dependency: Arc<str>,
        /// Calls that may be in flight.
        max_concurrent: u32,
        /// Calls that may wait.
        max_queue: u32,
    },
    /// The call did not end before its deadline.
    TimedOut {
        /// Its name.
        dependency: Arc<str>,
        /// How long it was tried.
        after: Duration,
        /// Whether the work may have been done.
        executed: Executed,
    },
    /// Its answer stopped in the middle; what had come before is the caller's.
    Stalled {
        /// Its name.
        dependency: Arc<str>,
        /// How long nothing came.
        after: Duration,
    },
    /// This call made its worker panic.
    WorkerCrashed {
        /// Its name.
        dependency: Arc<str>,
        /// The panic.
        panic: PanicReport,
    },
    /// The worker went away while it executed this call.
    Interrupted {
        /// Its name.
        dependency: Arc<str>,
        /// Why the worker went away.
        cause: StopCause,
    },
    /// The worker went away before it began this call.
    NotExecuted {
        /// Its name.
        dependency: Arc<str>,
        /// Why there is no worker.
        reason: Absence,
        /// When a worker is expected, if that is known.
        retry_after: Option<Duration>,
    },
    /// Calls like this one have crashed workers too often.
    Quarantined {
        /// Its name.
        dependency: Arc<str>,
        /// When it is let through again.
        retry_after: Duration,
    },
    /// It came too fast: the rate limit, or a pause that the dependency asked for.
    RateLimited {
        /// Its name.
        dependency: Arc<str>,
        /// What limits it.
        limit: Limit,
        /// When its turn would have come, if it would.
        retry_after: Option<Duration>,
    },
    /// Its session may spend no more.
    SessionSpent {
        /// Its name.
        dependency: Arc<str>,
        /// What the session could spend in all.
        limit: u64,
    },
    /// It was made to fail, for a test or a drill.
    Injected {
        /// Its name.
        dependency: Arc<str>,
    },
    /// The last fallback failed too.
    FallbackFailed {
        /// Its name.
        dependency: Arc<str>,
        /// The fallback's name.
        fallback: Arc<str>,
        /// What the fallback said.
        message: String,
        /// Why there was no primary answer.
        cause: Box<CallError<E>>,
    },
}

/// What a call was too fast for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// So many in each interval.
    Rate,
    /// The dependency asked for less traffic.
    Pause(PauseReason),
    /// It weighs more than may ever go out at once: make it smaller.
    TooHeavy {
        /// What it weighs.
        weight: NonZeroU32,
        /// What may go out at once.
        burst: NonZeroU32,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate => out.write_str("the rate limit is used up"),
            Self::Pause(reason) => write!(out, "it is paused, for {reason}"),
            Self::TooHeavy { weight, burst } => write!(
                out,
                "the call weighs {weight}, and at most {burst} may go out at once; split it"
            ),
        }
    }
}

/// A refusal by the breaker. It costs no allocation: the words are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the breaker's state is.
    pub state: RefusalState,
    /// When to try again, if that is known.
    pub retry_after: Option<Duration>,
    /// Whether an earlier attempt of the same call was executed: the breaker opened under it, and
    /// ended its retries.
    pub executed: Executed,
    /// Whose breaker it is, and why it is in that state.
    pub notice: SharedNotice,
}

/// Why there is no worker to begin a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It is being restarted.
    Restarting,
    /// It is kept down after too many crashes.
    Parked,
    /// The runtime or the dependency is going down.
    ShuttingDown,
    /// It was set up to answer from its fallbacks only.
    FallbackOnly,
    /// The call was made by an attribute, and no runtime is there to make it in.
    NoRuntime,
    /// The call was made by an attribute, and nobody has started a dependency of its name.
    NotStarted,
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Restarting => "its worker is being restarted",
            Self::Parked => "its worker is parked after too many crashes",
            Self::ShuttingDown => "it is shutting down",
            Self::FallbackOnly => "it answers from its fallbacks only",
            Self::NoRuntime => {
                "there is no runtime here; install or enter one, or name it in the attribute"
            }
            Self::NotStarted => "no dependency of this name was started in this runtime",
        })
    }
}

/// Who has to change something for such a call to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the same call fails again.
    Caller,
    /// The runtime refused locally; no outcome of the dependency.
    Runtime,
    /// The dependency; the only fault that counts against it.
    Dependency,
}

impl<E> CallError<E> {
    /// The dependency's name.
    #[must_use]
    pub fn dependency(&self) -> &str {
        match self {
            Self::Failed { dependency, .. }
            | Self::Overloaded { dependency, .. }
            | Self::TimedOut { dependency, .. }
            | Self::Stalled { dependency, .. }
            | Self::WorkerCrashed { dependency, .. }
            | Self::Interrupted { dependency, .. }
            | Self::NotExecuted { dependency, .. }
            | Self::Quarantined { dependency, .. }
            | Self::RateLimited { dependency, .. }
            | Self::SessionSpent { dependency, .. }
            | Self::Injected { dependency }
            | Self::FallbackFailed { dependency, .. } => dependency,
            Self::Open(refused) => &refused.notice.dependency,
        }
    }

    /// Whether the dependency did the work: `No` is a promise, safe to retry anywhere.
    #[must_use]
    pub fn executed(&self) -> Executed {
        match self {
            Self::Open(refused) => refused.executed,
            Self::Overloaded { .. }
            | Self::NotExecuted { .. }
            | Self::Quarantined { .. }
            | Self::RateLimited { .. }
            | Self::SessionSpent { .. }
            | Self::Injected { .. } => Executed::No,
            Self::Failed { executed, .. } | Self::TimedOut { executed, .. } => *executed,
            Self::Stalled { .. } | Self::WorkerCrashed { .. } | Self::Interrupted { .. } => {
                Executed::Maybe
            }
            Self::FallbackFailed { cause, .. } => cause.executed(),
        }
    }

    /// When to try again, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open(refused) => refused.retry_after,
            Self::NotExecuted { retry_after, .. } | Self::RateLimited { retry_after, .. } => {
                *retry_after
            }
            Self::Quarantined { retry_after, .. } => Some(*retry_after),
            Self::FallbackFailed { cause, .. } => cause.retry_after(),
            _ => None,
        }
    }

    /// Whose fault it is; the dependency's own errors are its fault unless it classified them as
    /// the caller's, which only [`Dependency::classify`](crate::Dependency::classify) knows.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Stalled { .. }
            | Self::WorkerCrashed { .. }
            | Self::Interrupted { .. }
            | Self::Injected { .. } => Fault::Dependency,
            Self::Quarantined { .. }
            | Self::SessionSpent { .. }
            | Self::RateLimited {
                limit: Limit::TooHeavy { .. },
                ..
            } => Fault::Caller,
            Self::Open(_)
            | Self::Overloaded { .. }
            | Self::NotExecuted { .. }
            | Self::RateLimited { .. } => Fault::Runtime,
            Self::FallbackFailed { cause, .. } => cause.fault(),
        }
    }

    /// Whether it was refused here, without the dependency having been asked.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::FallbackFailed { cause, .. } => cause.is_refusal(),
            _ => self.fault() != Fault::Dependency && self.executed() == Executed::No,
        }
    }

    /// The dependency's own error, if that is what it is.
    #[must_use]
    pub fn into_failed(self) -> Option<E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed {
                dependency, error, ..
            } => write!(out, "{dependency} failed: {error}"),
            Self::Open(refused) => refused.fmt(out),
            Self::Overloaded {
                dependency,
                max_concurrent,
                max_queue,
            } => write!(
                out,
                "{dependency} is overloaded: {max_concurrent} calls in flight and a queue of {max_queue} are the limits"
            ),
            Self::TimedOut {
                dependency,
                after,
                executed,
            } => write!(
                out,
                "{dependency} did not answer within {:?} (executed: {executed})",
                brief(*after)
            ),
            Self::Stalled { dependency, after } => write!(
                out,
                "{dependency} sent nothing for {:?} in the middle of its answer",
                brief(*after)
            ),
            Self::WorkerCrashed { dependency, panic } => {
                write!(
                    out,
                    "the worker of {dependency} crashed on this call: {panic}"
                )
            }
            Self::Interrupted { dependency, cause } => {
                write!(
                    out,
                    "the worker of {dependency} went away during this call: {cause}"
                )
            }
            Self::NotExecuted {
                dependency, reason, ..
            } => write!(out, "{dependency} was not called: {reason}"),
            Self::Quarantined {
                dependency,
                retry_after,
            } => write!(
                out,
                "calls like this one crashed workers of {dependency} too often; refused for another {:?}",
                brief(*retry_after)
            ),
            Self::RateLimited {
                dependency,
                limit,
                retry_after,
            } => {
                write!(out, "{dependency} was not called: {limit}")?;
                match retry_after {
                    Some(wait) => write!(out, "; try again in {:?}", brief(*wait)),
                    None => Ok(()),
                }
            }
            Self::SessionSpent { dependency, limit } => write!(
                out,
                "{dependency} was not called: the session has spent all of its {limit}"
            ),
            Self::Injected { dependency } => {
                write!(out, "{dependency} failed: chaos made this attempt fail")
            }
            Self::FallbackFailed {
                fallback,
                message,
                cause,
                ..
            } => write!(
                out,
                "fallback {fallback} failed: {message}; it stood in because {cause}"
            ),
        }
    }
}

/// A span for people: in whole milliseconds, rounded up, unless it is shorter than one.
fn brief(span: Duration) -> Duration {
    if span < Duration::from_millis(1) {
        return span;
    }
    let millis = span.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            retry_after,
            notice,
            ..
        } = self;
        let Notice {
            dependency,
            key,
            reason,
        } = &**notice;
        write!(out, "the breaker of {dependency}")?;
        if let Some(key) = key {
            write!(out, " for {key}")?;
        }
        write!(out, " is {state}: {reason}")?;
        match retry_after {
            Some(wait) => write!(out, "; try again in {:?}", brief(*wait)),
            None => Ok(()),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::FallbackFailed { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Why a dependency or a child could not be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name is taken: one dependency has one breaker.
    #[error("{name} is already running; a dependency has one breaker, share its handle")]
    AlreadyRegistered {
        /// The name.
        name: String,
    },
    /// Its first start failed; the ones before it were stopped again.
    #[error("{child} did not start: {cause}")]
    Failed {
        /// Which child.
        child: String,
        /// Why.
        cause: StopCause,
    },
    /// Its fallbacks would come back to it: nobody at the end of the chain could answer.
    #[error("the fallbacks of {name} would come back to it: {circle}")]
    FallbackCycle {
        /// The name.
        name: String,
        /// The way back, such as `a->b->a`.
        circle: String,
    },
    /// Attributes name dependencies that nobody has configured or started.
    #[error("{}", list(.names))]
    UnknownNames {
        /// Each of them.
        names: Vec<UnknownName>,
    },
    /// Another runtime is the process's own already.
    #[error("a runtime is installed already, and a process has one; enter this one instead")]
    AlreadyInstalled,
    /// The runtime is going down, or its thread is gone.
    #[error("the runtime is shutting down; nothing can be started any more")]
    ShuttingDown,
    /// The threads of the runtime could not be made.
    #[error("a thread of the runtime could not be started: {0}")]
    Thread(String),
    /// The program aborts on a panic, so nothing could be restarted after one.
    #[error("this program is built with panic = \"abort\"; supervision needs panic = \"unwind\"")]
    PanicAborts,
    /// The specification contradicts itself.
    #[error("{name} cannot be supervised: {reason}")]
    BadSpec {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}
