//! The ways in which a call can end without a primary answer, and their meaning for the caller.

mod conversion;

mod start_error;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::supervision::{PanicReport, StopCause};
use breakerbox_policy::{Executed, PauseReason, RefusalState, RoundedDuration};

use crate::bulkhead_limit::BulkheadLimit;
use crate::refusal_reason::RefusalReason;
use crate::time_limit::TimeLimit;

pub use start_error::{StartError, UnknownName};

/// The reason why a call got no primary answer.
///
/// Every variant tells whether the dependency may have done the work ([`CallError::executed`]),
/// when to try again ([`CallError::retry_after`]) and which party is at fault
/// ([`CallError::fault`]).
///
/// # Source  Rules CALL-2 and BRK-11 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
// With a one-byte tag and small fields beside it, each move of a result waited for the previous
// one: that cost a fifth of a successful call.
#[repr(u64)]
pub enum CallError<E> {
    /// The dependency's own error.
    Failed {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The dependency's own error.
        error: E,
        /// Execution state of the work, by the dependency's own verdict
        /// ([`Verdict::executed`](crate::Verdict::executed)).
        executed: Executed,
    },
    /// An answer that counts as a failure, by the verdict of
    /// [`Dependency::classify`](crate::Dependency::classify). It is the reason for which fallbacks
    /// are asked; where there is no better answer the call ends with this one, and not with an
    /// error.
    BadAnswer {
        /// The dependency's name.
        dependency: Arc<str>,
        /// Execution state of the work, by the verdict.
        executed: Executed,
    },
    /// The breaker does not let calls through.
    Open(Refused),
    /// Too many calls are in flight, and the queue is full or the wait was too long.
    Overloaded {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The limits that the call exceeded.
        limit: BulkheadLimit,
        /// Maximum number of calls in flight.
        max_concurrent: u32,
        /// Maximum number of waiting calls.
        max_queue: u32,
    },
    /// The call did not end before its deadline.
    TimedOut {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The limit that was exceeded.
        limit: TimeLimit,
        /// Time spent on the call.
        after: Duration,
        /// Execution state of the work.
        executed: Executed,
    },
    /// The answer stopped in the middle; the caller keeps the part that had arrived.
    Stalled {
        /// The dependency's name.
        dependency: Arc<str>,
        /// Time without any data.
        after: Duration,
    },
    /// This call made its worker panic.
    WorkerCrashed {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The panic.
        panic: PanicReport,
    },
    /// The worker ended while it executed this call.
    Interrupted {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The cause of the worker's end.
        cause: StopCause,
    },
    /// The worker ended before it began this call.
    NotExecuted {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The reason why there is no worker.
        reason: NotExecutedReason,
        /// The failure of the worker, if one is known: why it did not start, or ended.
        cause: Option<Arc<String>>,
        /// Wait until a worker is expected, if it is known.
        retry_after: Option<Duration>,
    },
    /// Calls like this one have crashed workers too often.
    Quarantined {
        /// The dependency's name.
        dependency: Arc<str>,
        /// Wait until the quarantine ends.
        retry_after: Duration,
    },
    /// Calls came too fast for the rate limit, or for a pause that the dependency asked for.
    RateLimited {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The limit that was exceeded.
        limit: Limit,
        /// Wait until the call's turn would have come; `None` if it would never come.
        retry_after: Option<Duration>,
    },
    /// The session's budget is exhausted.
    SessionSpent {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The session's total budget.
        limit: u64,
    },
    /// A fault was injected, for a test or a drill.
    Injected {
        /// The dependency's name.
        dependency: Arc<str>,
    },
    /// The last fallback failed too.
    FallbackFailed {
        /// The dependency's name.
        dependency: Arc<str>,
        /// The fallback's name.
        fallback: Arc<str>,
        /// The fallback's error text.
        message: String,
        /// Execution state of the work at the dependency and at all fallbacks together.
        executed: Executed,
        /// Execution state of the work at the fallbacks alone.
        executed_by_fallbacks: Executed,
        /// The reason why there was no primary answer.
        cause: Box<CallError<E>>,
    },
}

/// The limit that a call exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The number of calls in each interval.
    Rate,
    /// The dependency asked for less traffic.
    Pause(PauseReason),
    /// The call weighs more than the maximum burst: make it smaller.
    TooHeavy {
        /// The weight of the call.
        weight: NonZeroU32,
        /// Maximum weight that may go out at once.
        burst: NonZeroU32,
    },
    /// The tokens, or other amounts, that the call reserves are used up for now.
    Tokens,
    /// The call reserves more than may ever be reserved at once: make it smaller.
    TooManyTokens {
        /// The amount that the call reserves.
        asked: u64,
        /// Maximum amount that may be reserved at once.
        burst: u64,
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
            Self::Tokens => out.write_str("token_limit: the tokens are used up for now"),
            Self::TooManyTokens { asked, burst } => write!(
                out,
                "token_limit: the call may take {asked} tokens, and at most {burst} are given at once"
            ),
        }
    }
}

/// A refusal by the breaker. It costs no allocation: all refusals since a transition share its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The breaker's state.
    pub state: RefusalState,
    /// Wait until the next try, if it is known.
    pub retry_after: Option<Duration>,
    /// Execution state of an earlier attempt of the same call: the breaker may open during a call,
    /// which ends its retries.
    pub executed: Executed,
    /// True if the call had made an attempt before it was refused.
    pub(crate) after_attempt: bool,
    pub(crate) reason: Arc<RefusalReason>,
}

impl Refused {
    /// Makes a refusal, for tests of code that handles one.
    #[must_use]
    pub fn new(state: RefusalState, retry_after: Option<Duration>, reason: RefusalReason) -> Self {
        Self {
            state,
            retry_after,
            executed: Executed::No,
            after_attempt: false,
            reason: Arc::new(reason),
        }
    }

    /// Returns the breaker's dependency and key, and the reason for its state.
    #[must_use]
    pub fn reason(&self) -> &RefusalReason {
        &self.reason
    }
}

/// The reason why no worker can begin a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotExecutedReason {
    /// The worker is being restarted.
    Restarting,
    /// The worker is parked after too many crashes, or waits for its next try.
    Parked,
    /// The runtime or the dependency is shutting down.
    ShuttingDown,
    /// The dependency is set up to answer from its fallbacks only.
    FallbackOnly,
    /// The call was made by an attribute, and there is no runtime to make it in.
    NoRuntime,
    /// The call was made by an attribute, and no dependency of its name was started.
    NotStarted,
}

impl fmt::Display for NotExecutedReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Restarting => "its worker is being restarted",
            Self::Parked => "its worker does not run after too many crashes",
            Self::ShuttingDown => "it is shutting down",
            Self::FallbackOnly => "it answers from its fallbacks only",
            Self::NoRuntime => {
                "there is no runtime here; install or enter one, or name it in the attribute"
            }
            Self::NotStarted => "no dependency of this name was started in this runtime",
        })
    }
}

/// The party that has to change something for such a call to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the same call would fail again.
    Caller,
    /// The runtime: it refused locally, so this is no outcome of the dependency.
    Runtime,
    /// The dependency: the only fault that counts against its breaker.
    Dependency,
}

impl<E> CallError<E> {
    /// The error of a call that ran out of time.
    pub(crate) fn timed_out(
        dependency: Arc<str>,
        (limit, after): (TimeLimit, Duration),
        executed: Executed,
    ) -> Self {
        Self::TimedOut {
            dependency,
            limit,
            after,
            executed,
        }
    }

    /// The error of a call after its fallbacks failed. `executed`: execution state at all of them.
    pub(crate) fn fallback_failed(
        self,
        dependency: Arc<str>,
        (fallback, message): (Arc<str>, String),
        executed: Executed,
    ) -> Self {
        Self::FallbackFailed {
            dependency,
            fallback,
            message,
            // CALL-2: `no` speaks for all that were asked.
            executed: self.executed().max(executed),
            executed_by_fallbacks: self.executed_by_fallbacks().max(executed),
            cause: Box::new(self),
        }
    }

    /// The dependency's name.
    #[must_use]
    pub fn dependency(&self) -> &str {
        match self {
            Self::Failed { dependency, .. }
            | Self::BadAnswer { dependency, .. }
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
            Self::Open(refused) => &refused.reason.dependency,
        }
    }

    /// Returns the execution state of the work. `No` is a guarantee: the call is safe to retry
    /// anywhere.
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
            Self::Failed { executed, .. }
            | Self::BadAnswer { executed, .. }
            | Self::TimedOut { executed, .. }
            | Self::FallbackFailed { executed, .. } => *executed,
            Self::Stalled { .. } | Self::WorkerCrashed { .. } | Self::Interrupted { .. } => {
                Executed::Maybe
            }
        }
    }

    /// Returns the execution state of the work at the fallbacks alone: `No` where none was asked. The
    /// dependency may have said that it has done nothing, as with a throttle, while one of them has.
    #[must_use]
    pub fn executed_by_fallbacks(&self) -> Executed {
        match self {
            Self::FallbackFailed {
                executed_by_fallbacks,
                ..
            } => *executed_by_fallbacks,
            _ => Executed::No,
        }
    }

    /// Returns the wait until the next try, if it is known.
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

    /// Returns the party at fault. The dependency's own errors count as its fault: only
    /// [`Dependency::classify`](crate::Dependency::classify) knows which of them are the caller's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Failed { .. }
            | Self::BadAnswer { .. }
            | Self::TimedOut { .. }
            | Self::Stalled { .. }
            | Self::WorkerCrashed { .. }
            | Self::Interrupted { .. }
            | Self::Injected { .. } => Fault::Dependency,
            Self::Quarantined { .. }
            | Self::SessionSpent { .. }
            | Self::RateLimited {
                limit: Limit::TooHeavy { .. } | Limit::TooManyTokens { .. },
                ..
            } => Fault::Caller,
            Self::Open(_)
            | Self::Overloaded { .. }
            | Self::NotExecuted { .. }
            | Self::RateLimited { .. } => Fault::Runtime,
            Self::FallbackFailed { cause, .. } => cause.fault(),
        }
    }

    /// Returns true if the call was refused locally, without asking the dependency.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::FallbackFailed { cause, .. } => cause.is_refusal(),
            Self::Open(refused) if refused.after_attempt => false,
            _ => self.fault() != Fault::Dependency && self.executed() == Executed::No,
        }
    }

    /// Returns the dependency's own error, if this is one.
    #[must_use]
    pub fn into_failed(self) -> Option<E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            _ => None,
        }
    }
}

fn write_timed_out(
    out: &mut fmt::Formatter<'_>,
    dependency: &str,
    (limit, after): (TimeLimit, Duration),
    executed: Executed,
) -> fmt::Result {
    let what = match executed {
        // Its turn did not come, or it was being started: it is not slow to answer.
        Executed::No => "could not be asked",
        _ => "did not answer",
    };
    let after = RoundedDuration(after);
    write!(
        out,
        "{dependency} {what} within {after} ({limit}; executed: {executed})"
    )
}

fn write_bad_answer(out: &mut fmt::Formatter<'_>, dependency: &str) -> fmt::Result {
    write!(out, "{dependency} gave an answer that counts as a failure")
}

fn write_rate_limited(
    out: &mut fmt::Formatter<'_>,
    dependency: &str,
    limit: &Limit,
    retry_after: Option<Duration>,
) -> fmt::Result {
    write!(out, "{dependency} was not called: {limit}")?;
    match retry_after {
        Some(wait) => write!(out, "; try again in {}", RoundedDuration(wait)),
        None => Ok(()),
    }
}

fn write_not_executed(
    out: &mut fmt::Formatter<'_>,
    dependency: &str,
    reason: NotExecutedReason,
    cause: Option<&String>,
) -> fmt::Result {
    write!(out, "{dependency} was not called: {reason}")?;
    match cause {
        Some(cause) => write!(out, ": {cause}"),
        None => Ok(()),
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed {
                dependency, error, ..
            } => write!(out, "{dependency} failed: {error}"),
            Self::BadAnswer { dependency, .. } => write_bad_answer(out, dependency),
            Self::Open(refused) => refused.fmt(out),
            Self::Overloaded {
                dependency,
                limit,
                max_concurrent,
                max_queue,
            } => {
                write!(out, "{dependency} is overloaded: ")?;
                limit.write(out, *max_concurrent, *max_queue)
            }
            Self::TimedOut {
                dependency,
                limit,
                after,
                executed,
            } => write_timed_out(out, dependency, (*limit, *after), *executed),
            Self::Stalled { dependency, after } => write!(
                out,
                "{dependency} sent nothing for {} in the middle of its answer ({})",
                RoundedDuration(*after),
                TimeLimit::Idle
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
                dependency,
                reason,
                cause,
                ..
            } => write_not_executed(out, dependency, *reason, cause.as_deref()),
            Self::Quarantined {
                dependency,
                retry_after,
            } => write!(
                out,
                "calls like this one crashed workers of {dependency} too often; refused for another {}",
                RoundedDuration(*retry_after)
            ),
            Self::RateLimited {
                dependency,
                limit,
                retry_after,
            } => write_rate_limited(out, dependency, limit, *retry_after),
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
                "fallback {fallback} failed: {message}; it was asked because {cause}"
            ),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            retry_after,
            reason,
            ..
        } = self;
        let RefusalReason {
            dependency,
            key,
            reason,
        } = &**reason;
        write!(out, "the breaker of {dependency}")?;
        if let Some(key) = key {
            write!(out, " for {key}")?;
        }
        write!(out, " is {state}: {reason}")?;
        match retry_after {
            Some(wait) => write!(out, "; try again in {}", RoundedDuration(*wait)),
            None => Ok(()),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    /// Returns the source of the inner error: the text of that error is part of this one's, and no
    /// report says it twice.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { error, .. } => error.source(),
            Self::FallbackFailed { cause, .. } => cause.source(),
            _ => None,
        }
    }
}
