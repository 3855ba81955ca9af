//! Progress of an attempt that is still being sent: limits of time then bound its silence.

use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use breakerbox_policy::{Executed, Ticket, Time};

use crate::clock::NotedTime;
use crate::sync::LockExt;
use crate::time_limit::TimeLimit;

/// The progress of an attempt, noted by the work that makes it. Clones share it.
///
/// `timeout.attempt` and `timeout.first_byte` count from the last note. While the work is paused,
/// because it waits for its own caller, they do not count at all. During a [hold](Self::hold) the
/// limit of the whole call stands still too.
#[derive(Debug, Clone, Default)]
pub struct AttemptProgress(Arc<Mutex<ProgressState>>);

#[derive(Debug, Default)]
struct ProgressState {
    noted: Option<NotedTime>,
    is_paused: bool,
    is_final: bool,
    is_unsent: bool,
    /// True once an attempt of the call has sent something.
    has_sent: bool,
    upload: UploadState,
    /// Number of holds, and the begin of the first of those that last.
    holds: u32,
    held_since: Option<NotedTime>,
    /// Duration of the holds that are over.
    held: Duration,
    /// The end of the call that no hold moves, once its limits are known.
    ends: Option<CallEnd>,
    upload_limit: Option<Duration>,
    /// The bulkhead of the present attempt, and the kind of its slot.
    slot: Option<(Weak<dyn SlotDemand>, Ticket)>,
}

/// The slots of a bulkhead, as an attempt asks about the one that it holds.
pub(crate) trait SlotDemand: Send + Sync {
    /// Returns true if a call of this kind would find no free slot.
    fn is_full(&self, kind: Ticket) -> bool;
}

/// The caller's part of a call, as far as it is told.
#[derive(Debug, Default)]
enum UploadState {
    /// There is none, or it is over.
    #[default]
    Over,
    /// It is on its way. The waker is that of the attempt.
    OnItsWay(Option<Waker>),
}

/// The end of a call by its limits.
#[derive(Debug, Clone, Copy)]
enum CallEnd {
    /// The caller's own deadline: nothing moves it.
    Fixed,
    /// A limit of the settings, which holds move up to the caller's own deadline.
    Movable(Option<Time>),
}

/// Time between two looks at a hold that outlasts its call's limit.
const HOLD_PAUSE: Duration = Duration::from_millis(20);

/// A hold of a call's limits of time, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct ProgressHold {
    progress: AttemptProgress,
    before: Duration,
}

impl ProgressHold {
    /// Returns the time for which the call was held before: by other holds, also by those that last.
    #[must_use]
    pub fn before(&self) -> Duration {
        self.before
    }
}

impl Drop for ProgressHold {
    fn drop(&mut self) {
        let mut state = self.progress.0.acquire();
        state.holds = state.holds.saturating_sub(1);
        if state.holds == 0
            && let Some(since) = state.held_since.take()
        {
            state.held += since.elapsed();
            state.noted = Some(NotedTime::now());
        }
    }
}

impl AttemptProgress {
    /// Begins a hold: a person is asked something, and neither the dependency nor the caller can
    /// hurry. The limit of the attempt, and that of the whole call, stand still until it is dropped.
    /// The caller's own deadline does not. An attempt that ends meanwhile is cancelled, which is
    /// neutral.
    pub fn hold(&self) -> ProgressHold {
        let mut state = self.0.acquire();
        state.holds += 1;
        let present = state.held_since.map_or(Duration::ZERO, NotedTime::elapsed);
        let before = state.held + present;
        if state.held_since.is_none() {
            state.held_since = Some(NotedTime::now());
        }
        drop(state);
        ProgressHold {
            progress: self.clone(),
            before,
        }
    }

    /// Returns true while a person is asked.
    pub(crate) fn is_held(progress: Option<&Self>) -> bool {
        progress.is_some_and(|progress| progress.0.acquire().holds > 0)
    }

    /// Sets the limits that bound the holds: the one of the call's deadline, and the caller's own
    /// deadline.
    pub(crate) fn bound_holds(&self, limit: TimeLimit, callers: Option<Time>) {
        self.0.acquire().ends = Some(match limit {
            TimeLimit::Caller => CallEnd::Fixed,
            _ => CallEnd::Movable(callers),
        });
    }

    /// Returns the end of a call with limits that end at `deadline`, moved by its holds; later than `now`
    /// while one lasts.
    pub(crate) fn moved(progress: Option<&Self>, deadline: Time, now: Time) -> Time {
        let Some(progress) = progress else {
            return deadline;
        };
        let state = progress.0.acquire();
        let Some(CallEnd::Movable(latest)) = state.ends else {
            return deadline;
        };
        let present = state.held_since.map_or(Duration::ZERO, NotedTime::elapsed);
        let mut end = deadline.after(state.held + present);
        if state.held_since.is_some() {
            // It moves on while the hold lasts.
            end = end.max(now.after(HOLD_PAUSE));
        }
        latest.map_or(end, |latest| latest.max(deadline).min(end))
    }

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

    /// Notes that the caller's part of the call is on its way. Until [`end_upload`](Self::end_upload) the
    /// call is not overdue, however long it runs (rule BRK-9), and its duration counts from there.
    pub fn begin_upload(&self) {
        self.0.acquire().upload = UploadState::OnItsWay(None);
    }

    /// Notes that the dependency has all of the caller's part.
    pub fn end_upload(&self) {
        let before = std::mem::take(&mut self.0.acquire().upload);
        if let UploadState::OnItsWay(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Returns true while the caller's part is on its way.
    pub(crate) fn is_uploading(&self) -> bool {
        matches!(self.0.acquire().upload, UploadState::OnItsWay(_))
    }

    /// Ready once the caller's part is not on its way any more.
    ///
    /// # Cancel safety   It can be polled again.
    pub(crate) fn poll_uploaded(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut self.0.acquire().upload {
            UploadState::Over => Poll::Ready(()),
            UploadState::OnItsWay(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Notes whether nothing has been sent so far, because the dependency has to be prepared first. A
    /// limit of time that ends the attempt meanwhile leaves it unexecuted (rule CALL-2).
    pub fn set_unsent(&self, is_unsent: bool) {
        let mut state = self.0.acquire();
        state.is_unsent = is_unsent;
        state.has_sent |= !is_unsent;
    }

    /// Returns true if nothing has been sent so far, by this attempt or an earlier one of the call.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        let state = self.0.acquire();
        state.is_unsent && !state.has_sent
    }

    /// Returns the execution of an attempt that a limit of time has ended after its begin.
    pub(crate) fn executed(progress: Option<&Self>) -> Executed {
        match progress {
            // An attempt beside it may have sent something.
            Some(progress) if progress.is_unsent() => Executed::No,
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

    /// Notes that an attempt begins. `limit`: the time in which the caller's part has to be over;
    /// `slot`: the bulkhead in which it holds a slot, and the kind of that slot.
    pub(crate) fn begin_attempt(
        &self,
        limit: Option<Duration>,
        slot: (Weak<dyn SlotDemand>, Ticket),
    ) {
        let mut state = self.0.acquire();
        state.upload_limit = limit;
        state.slot = Some(slot);
    }

    /// Returns true if the present attempt holds a slot of its dependency while no other is free: a
    /// further call would wait, or be refused.
    #[must_use]
    pub fn holds_needed_slot(&self) -> bool {
        let slot = self.0.acquire().slot.clone();
        slot.is_some_and(|(bulkhead, kind)| {
            let bulkhead = bulkhead.upgrade();
            bulkhead.is_some_and(|bulkhead| bulkhead.is_full(kind))
        })
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
        if state.is_paused || state.holds > 0 {
            return Some(Duration::ZERO);
        }
        state.noted.map(NotedTime::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn call_2_an_attempt_beside_one_that_was_sent_takes_nothing_back() {
        let progress = AttemptProgress::default();
        progress.set_unsent(true);
        assert_eq!(AttemptProgress::executed(Some(&progress)), Executed::No);
        progress.set_unsent(false);
        progress.set_unsent(true);
        assert_eq!(AttemptProgress::executed(Some(&progress)), Executed::Maybe);
    }

    /// A bulkhead without a free slot for writes.
    struct FullOfWrites;

    impl SlotDemand for FullOfWrites {
        fn is_full(&self, kind: Ticket) -> bool {
            kind.write
        }
    }

    #[test]
    fn edge_4_a_slot_is_needed_while_no_other_of_its_kind_is_free() {
        let progress = AttemptProgress::default();
        assert!(!progress.holds_needed_slot(), "no attempt has begun");
        let bulkhead: Arc<dyn SlotDemand> = Arc::new(FullOfWrites);
        for write in [false, true] {
            let kind = Ticket {
                priority: breakerbox_policy::Priority::Normal,
                write,
            };
            progress.begin_attempt(None, (Arc::downgrade(&bulkhead), kind));
            assert_eq!(progress.holds_needed_slot(), write);
        }
        drop(bulkhead);
        assert!(!progress.holds_needed_slot(), "the dependency is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn edge_1_the_limits_of_a_call_stand_still_while_a_person_is_asked() {
        let (progress, end) = (AttemptProgress::default(), Time::from_millis(3_000));
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        let moved = |now| AttemptProgress::moved(Some(&progress), end, now);
        progress.bound_holds(TimeLimit::Total, Some(at(60)));
        assert_eq!(moved(at(0)), end);
        let (one, other) = (progress.hold(), progress.hold());
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(progress.hold().before(), 5 * SECOND);
        assert!(AttemptProgress::is_held(Some(&progress)));
        assert_eq!(moved(at(5)), at(8));
        assert_eq!(progress.silent_for(), Some(Duration::ZERO));
        // A note of the dependency ends no hold.
        progress.note();
        drop(one);
        tokio::time::advance(SECOND).await;
        assert_eq!(moved(at(6)), at(9));
        drop(other);
        tokio::time::advance(SECOND).await;
        assert_eq!(moved(at(7)), at(9));
        assert_eq!(progress.silent_for(), Some(SECOND));
        // While one lasts, the end is never there; the caller's own deadline is.
        let third = progress.hold();
        assert_eq!(third.before(), 6 * SECOND);
        assert_eq!(moved(at(20)), at(20).after(HOLD_PAUSE));
        assert_eq!(moved(at(70)), at(60));
        progress.bound_holds(TimeLimit::Caller, Some(end));
        assert_eq!(moved(at(20)), end);
    }
}
