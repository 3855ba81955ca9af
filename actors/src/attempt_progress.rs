//! Progress of an attempt that is still being sent: limits of time then bound its silence.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::Executed;

use crate::clock::NotedTime;
use crate::sync::LockExt;

/// The progress of an attempt, noted by the work that makes it. Clones share it.
///
/// `timeout.attempt` and `timeout.first_byte` count from the last note. While the work is paused,
/// because it waits for its own caller, they do not count at all.
#[derive(Debug, Clone, Default)]
pub struct AttemptProgress(Arc<Mutex<ProgressState>>);

#[derive(Debug, Default)]
struct ProgressState {
    noted: Option<NotedTime>,
    is_paused: bool,
    is_final: bool,
    is_unsent: bool,
    upload_limit: Option<Duration>,
}

impl AttemptProgress {
    /// Notes that the dependency has taken something, and ends a pause.
    pub fn note(&self) {
        let mut state = self.0.acquire();
        state.noted = Some(NotedTime::now());
        state.is_paused = false;
    }

    /// Begins a pause: the work waits for its caller, and not for the dependency.
    pub fn pause(&self) {
        self.0.acquire().is_paused = true;
    }

    /// Returns true while the work waits for its caller.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.acquire().is_paused
    }

    /// Notes whether nothing has been sent so far, because the dependency has to be prepared first. A
    /// limit of time that ends the attempt meanwhile leaves it unexecuted (rule CALL-2).
    pub fn set_unsent(&self, is_unsent: bool) {
        self.0.acquire().is_unsent = is_unsent;
    }

    /// Returns the execution of an attempt that a limit of time has ended after its begin.
    pub(crate) fn executed(progress: Option<&Self>) -> Executed {
        match progress {
            Some(progress) if progress.0.acquire().is_unsent => Executed::No,
            _ => Executed::Maybe,
        }
    }

    /// Returns the execution of an attempt that a limit has ended, before its begin (`No`) or after.
    pub(crate) fn executed_at(progress: Option<&Self>, known: Executed) -> Executed {
        match known {
            Executed::No => Executed::No,
            _ => Self::executed(progress),
        }
    }

    /// Rules out further attempts: what this one has sent cannot be sent again. The call then ends
    /// with this attempt, even if its error allows more.
    pub fn forbid_repeats(&self) {
        self.0.acquire().is_final = true;
    }

    /// Sets the time in which the caller's part of the present attempt has to be over.
    pub(crate) fn limit_upload(&self, limit: Option<Duration>) {
        self.0.acquire().upload_limit = limit;
    }

    /// Returns the time in which the caller's part of the present attempt has to be over, if the
    /// attempt is a probe. The breaker would take a longer silence for a failure.
    #[must_use]
    pub fn upload_limit(&self) -> Option<Duration> {
        self.0.acquire().upload_limit
    }

    /// Returns true unless further attempts are ruled out.
    pub(crate) fn may_repeat(&self) -> bool {
        !self.0.acquire().is_final
    }

    /// Returns the time for which the dependency is silent, or `None` without any note.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let state = self.0.acquire();
        if state.is_paused {
            return Some(Duration::ZERO);
        }
        state.noted.map(NotedTime::elapsed)
    }
}
