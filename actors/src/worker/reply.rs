//! Handover of a call's answer, and of the news that either side is gone.
//!
//! A oneshot channel would do for the answer. This one also knows whether the work has begun, so
//! that an error can promise "not executed" (rule CALL-2). It also keeps the permit, so that
//! worker, caller and deadline cannot settle it twice (rule CALL-1).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use breakerbox_policy::{Executed, Pause, Time};

use crate::attempt_progress::AttemptProgress;
use crate::breaker::admission::{PermitGuard, Settled};
use crate::breaker::judgement;
use crate::deadline::Timer;
use crate::error::Refused;
use crate::state::Shared;
use crate::sync::LockExt;
use crate::verdict::Verdict;

/// Progress of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallPhase {
    /// It waits in a worker's queue.
    Queued,
    /// A worker executes it.
    Begun,
    /// Its outcome is being recorded; the answer follows.
    Settling,
    /// The answer is available.
    Done,
    /// The caller is gone.
    Abandoned,
}

/// The state shared by caller and worker.
struct ReplyCell<T> {
    shared: Arc<Shared>,
    state: Mutex<ReplyState<T>>,
}

struct ReplyState<T> {
    phase: CallPhase,
    permit: Option<PermitGuard>,
    answer: Option<T>,
    caller: Option<Waker>,
    worker: Option<Waker>,
}

impl<T> ReplyCell<T> {
    fn lock(&self) -> MutexGuard<'_, ReplyState<T>> {
        // No user code runs under the lock.
        self.state.acquire()
    }

    fn deliver(&self, answer: T) {
        let waker = self.lock().finish(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> ReplyState<T> {
    /// Stores the answer, unless the caller is gone.
    fn finish(&mut self, answer: T) -> Option<Waker> {
        if self.phase == CallPhase::Abandoned {
            return None;
        }
        self.phase = CallPhase::Done;
        self.answer = Some(answer);
        self.caller.take()
    }
}

/// Makes both ends for one attempt; `has_begun` is true if its first poll is over.
///
/// `own_timer` is true if the worker is on another thread. A worker on the caller's thread cannot
/// be late without the caller being late too, and it checks every deadline itself.
pub(crate) fn reply<T>(
    shared: Arc<Shared>,
    permit: PermitGuard,
    deadline: Option<Time>,
    (own_timer, has_begun): (bool, bool),
) -> (ReplySender<T>, ReplyReceiver<T>) {
    let cell = Arc::new(ReplyCell {
        shared,
        state: Mutex::new(ReplyState {
            phase: if has_begun {
                CallPhase::Begun
            } else {
                CallPhase::Queued
            },
            permit: Some(permit),
            answer: None,
            caller: None,
            worker: None,
        }),
    });
    let waiting = ReplyReceiver {
        cell: Arc::clone(&cell),
        timer: Timer::new(deadline.filter(|_| own_timer)),
        deadline: deadline.filter(|_| own_timer),
        progress: None,
        polled: false,
        finished: false,
    };
    (ReplySender { cell }, waiting)
}

/// Decision on whether queued work may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BeginDecision {
    Go,
    /// The caller is gone (rule CALL-4).
    CallerGone,
    /// The breaker has opened meanwhile; the work is still to be refused.
    BreakerChanged(Refused),
    /// The dependency has asked for a pause meanwhile; the work is still to be refused.
    Paused(Pause),
}

/// The worker's end. It answers exactly once; its owner gives a reason before dropping it
/// unanswered.
pub(crate) struct ReplySender<T> {
    cell: Arc<ReplyCell<T>>,
}

impl<T: Send + 'static> ReplySender<T> {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.cell.shared
    }

    /// Records that the work begins, if it still may.
    pub(crate) fn begin(&self, now: Time) -> BeginDecision {
        let mut state = self.cell.lock();
        if state.phase != CallPhase::Queued {
            return BeginDecision::CallerGone;
        }
        if let Some(permit) = &mut state.permit {
            if permit.is_stale(&self.cell.shared) {
                return BeginDecision::BreakerChanged(permit.stale_refusal(&self.cell.shared, now));
            }
            if let Some(pause) = permit.pause(&self.cell.shared, now) {
                return BeginDecision::Paused(pause);
            }
            permit.begin(now);
        }
        state.phase = CallPhase::Begun;
        BeginDecision::Go
    }

    /// Returns true if the caller is gone; else the worker is woken when it goes.
    pub(crate) fn poll_abandoned(&self, cx: &Context<'_>) -> bool {
        let mut state = self.cell.lock();
        if state.phase == CallPhase::Abandoned {
            return true;
        }
        match &mut state.worker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        false
    }

    /// Returns the time since the call was sent, or zero if it is settled already.
    pub(crate) fn waited(&self, now: Time) -> Duration {
        let state = self.cell.lock();
        let permit = state.permit.as_ref();
        permit.map_or(Duration::ZERO, |permit| now.since(permit.started()))
    }

    /// Returns true if the work has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.cell.lock().phase != CallPhase::Queued
    }

    /// Records the outcome, then hands the answer over.
    pub(crate) fn settle(self, verdict: Verdict, now: Time, answer: T) {
        let mut state = self.cell.lock();
        if state.phase == CallPhase::Abandoned {
            return;
        }
        let shared = &self.cell.shared;
        // CALL-3: the outcome is settled before the answer is stored.
        let settled = match state.permit.take() {
            Some(permit) => permit.settle(shared, &verdict, now),
            None => Settled::Counted,
        };
        match settled {
            Settled::Counted => {
                let waker = state.finish(answer);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Settled::NeedsReport(mut report) => {
                state.phase = CallPhase::Settling;
                drop(state);
                let cell = Arc::clone(&self.cell);
                report.then = Some(Box::new(move || cell.deliver(answer)));
                judgement::count(shared, *report);
            }
        }
    }

    /// Gives the permit back unused and hands the answer over: the work was not begun.
    pub(crate) fn refuse(self, answer: T) {
        let permit = self.cell.lock().permit.take();
        if let Some(permit) = permit {
            permit.release(&self.cell.shared);
        }
        self.cell.deliver(answer);
    }
}

impl<T> Drop for ReplyCell<T> {
    fn drop(&mut self) {
        let state = self.state.exclusive();
        if let Some(permit) = state.permit.take() {
            permit.abandon(&self.shared, false);
        }
    }
}

/// The caller's end: resolves with the answer, or with the call's progress at the deadline.
///
/// # Cancel safety   Dropping it tells the worker, which drops the work; the outcome is
/// `cancelled`.
pub(crate) struct ReplyReceiver<T> {
    cell: Arc<ReplyCell<T>>,
    timer: Timer,
    /// The deadline without holds.
    deadline: Option<Time>,
    /// Progress with the holds that move the deadline.
    progress: Option<AttemptProgress>,
    polled: bool,
    finished: bool,
}

/// The deadline came first.
pub(crate) struct TooLate {
    /// The possible execution of the work: `No` or `Maybe`.
    pub(crate) executed: Executed,
    /// The permit, if its outcome is still to be recorded by the caller and not by the worker.
    pub(crate) permit: Option<PermitGuard>,
}

impl<T> Future for ReplyReceiver<T> {
    type Output = Result<T, TooLate>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        {
            let mut state = this.cell.lock();
            if let Some(answer) = state.answer.take() {
                this.finished = true;
                return Poll::Ready(Ok(answer));
            }
            match &mut state.caller {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                waker => *waker = Some(cx.waker().clone()),
            }
        }
        let Some(deadline) = this.deadline else {
            return Poll::Pending;
        };
        if !this.polled {
            // Most calls have their answer by the next poll. They get no timer, which would cost as
            // much as the call.
            this.polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while this.timer.poll(&this.cell.shared.clock, cx).is_ready() {
            let now = this.cell.shared.clock.now();
            let end = AttemptProgress::moved(this.progress.as_ref(), deadline, now);
            if end <= now {
                return Poll::Ready(this.give_up());
            }
            this.timer = Timer::new(Some(end));
        }
        Poll::Pending
    }
}

impl<T> ReplyReceiver<T> {
    /// Sets the progress with the holds that move the deadline.
    pub(crate) fn set_progress(&mut self, progress: Option<AttemptProgress>) {
        self.progress = progress;
    }

    #[expect(
        clippy::result_large_err,
        reason = "made once, at the end of a call; in a box it would be allocated there"
    )]
    fn give_up(&mut self) -> Result<T, TooLate> {
        self.finished = true;
        let (executed, permit, worker) = {
            let mut state = self.cell.lock();
            if let Some(answer) = state.answer.take() {
                return Ok(answer);
            }
            let executed = match state.phase {
                CallPhase::Queued => Executed::No,
                _ => Executed::Maybe,
            };
            state.phase = CallPhase::Abandoned;
            (executed, state.permit.take(), state.worker.take())
        };
        if let Some(worker) = worker {
            worker.wake();
        }
        Err(TooLate { executed, permit })
    }
}

impl<T> Drop for ReplyReceiver<T> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (permit, worker) = {
            let mut state = self.cell.lock();
            if matches!(state.phase, CallPhase::Done | CallPhase::Abandoned) {
                return;
            }
            state.phase = CallPhase::Abandoned;
            (state.permit.take(), state.worker.take())
        };
        if let Some(permit) = permit {
            // A panic that unwinds here is the caller's own; a worker's panic is caught.
            permit.abandon(&self.cell.shared, false);
        }
        if let Some(worker) = worker {
            worker.wake();
        }
    }
}
