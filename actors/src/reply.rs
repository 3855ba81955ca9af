//! The one place where a call's answer is handed over, and where both sides learn that the other
//! is gone.
//!
//! A oneshot channel would do for the answer. This one also knows whether the work has begun, so
//! that an error can promise "not executed" (rule CALL-2), and it keeps the admission, so that
//! worker, caller and clock cannot settle it twice (rule CALL-1).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use breakerbox_policy::{Executed, Pause, Symptom, Time};
use tokio::time::Sleep;

use crate::admission::{Admission, Held, Settled};
use crate::clock::Clock;
use crate::dependency::{Shared, Verdict};
use crate::error::Refused;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits in a worker's queue.
    Queued,
    /// A worker executes it.
    Begun,
    /// Its outcome is being counted; the answer follows.
    Settling,
    /// The answer is there.
    Done,
    /// The caller is gone.
    Abandoned,
}

/// What caller and worker share.
struct Cell<T> {
    shared: Arc<Shared>,
    state: Mutex<State<T>>,
}

struct State<T> {
    phase: Phase,
    admission: Option<Held>,
    answer: Option<T>,
    caller: Option<Waker>,
    worker: Option<Waker>,
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No user code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, answer: T) {
        let waker = self.lock().finish(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> State<T> {
    /// Puts the answer in, unless nobody waits.
    fn finish(&mut self, answer: T) -> Option<Waker> {
        if self.phase == Phase::Abandoned {
            return None;
        }
        self.phase = Phase::Done;
        self.answer = Some(answer);
        self.caller.take()
    }
}

/// Makes the two ends for one attempt; `has_begun` is for one whose first turn is over.
///
/// `own_timer` is for a worker on another thread: one on the caller's own thread cannot be late
/// without the caller being late too, and sees to every deadline by itself.
pub(crate) fn reply<T>(
    shared: Arc<Shared>,
    admission: Held,
    deadline: Option<Time>,
    (own_timer, has_begun): (bool, bool),
) -> (Replier<T>, Waiting<T>) {
    let cell = Arc::new(Cell {
        shared,
        state: Mutex::new(State {
            phase: if has_begun {
                Phase::Begun
            } else {
                Phase::Queued
            },
            admission: Some(admission),
            answer: None,
            caller: None,
            worker: None,
        }),
    });
    let waiting = Waiting {
        cell: Arc::clone(&cell),
        timer: Timer::new(deadline.filter(|_| own_timer)),
        polled: false,
        finished: false,
    };
    (Replier { cell }, waiting)
}

/// Whether queued work may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    Go,
    /// Nobody waits for it any more (rule CALL-4).
    Deserted,
    /// The breaker has opened since; it is still to be refused.
    Overtaken(Refused),
    /// The dependency has asked for a pause since; it is still to be refused.
    Paused(Pause),
}

/// The worker's end. It answers exactly once; whoever drops it unanswered must have said why.
pub(crate) struct Replier<T> {
    cell: Arc<Cell<T>>,
}

impl<T: Send + 'static> Replier<T> {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.cell.shared
    }

    /// Notes that the work begins, if it still may.
    pub(crate) fn begin(&self, now: Time) -> Begin {
        let mut state = self.cell.lock();
        if state.phase != Phase::Queued {
            return Begin::Deserted;
        }
        if let Some(held) = &mut state.admission {
            if held.is_overtaken(&self.cell.shared) {
                return Begin::Overtaken(held.overtaken(&self.cell.shared, now));
            }
            if let Some(pause) = self.cell.shared.pauses.now(now) {
                return Begin::Paused(pause);
            }
            held.begin(now);
        }
        state.phase = Phase::Begun;
        Begin::Go
    }

    /// Whether the caller has gone; the worker is woken when it goes.
    pub(crate) fn poll_abandoned(&self, cx: &Context<'_>) -> bool {
        let mut state = self.cell.lock();
        if state.phase == Phase::Abandoned {
            return true;
        }
        match &mut state.worker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        false
    }

    /// How long ago it was sent, if nobody has settled it yet.
    pub(crate) fn waited(&self, now: Time) -> Duration {
        let state = self.cell.lock();
        let held = state.admission.as_ref();
        held.map_or(Duration::ZERO, |held| now.since(held.started()))
    }

    /// Whether the work has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.cell.lock().phase != Phase::Queued
    }

    /// Counts the outcome and then hands the answer over.
    pub(crate) fn settle(self, verdict: Verdict, now: Time, answer: T) {
        let mut state = self.cell.lock();
        if state.phase == Phase::Abandoned {
            return;
        }
        let shared = &self.cell.shared;
        let settled = match state.admission.take() {
            Some(held) => shared.settle(held, &verdict, now),
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
            Settled::Owed(mut report) => {
                state.phase = Phase::Settling;
                drop(state);
                let cell = Arc::clone(&self.cell);
                report.then = Some(Box::new(move || cell.hand_over(answer)));
                shared.report(*report);
            }
        }
    }

    /// Gives the permit back unused and hands the answer over: the work was not begun.
    pub(crate) fn refuse(self, answer: T) {
        let admission = self.cell.lock().admission.take();
        if let Some(held) = admission {
            self.cell.shared.release(held);
        }
        self.cell.hand_over(answer);
    }
}

impl<T> Drop for Cell<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = state.admission.take() {
            self.shared.forsake(held, false);
        }
    }
}

/// The caller's end: resolves with the answer, or with how far it had come at the deadline.
///
/// # Cancel safety   Dropped, it tells the worker, which drops the work; the outcome is
/// `cancelled`.
pub(crate) struct Waiting<T> {
    cell: Arc<Cell<T>>,
    timer: Timer,
    polled: bool,
    finished: bool,
}

/// When to stop waiting. Nothing is armed before it is polled.
pub(crate) struct Timer {
    deadline: Option<Time>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new(deadline: Option<Time>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    /// Arms the timer at the first look and says whether the deadline has come.
    pub(crate) fn poll(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        self.sleep
            .get_or_insert_with(|| Box::pin(clock.sleep_until(deadline)))
            .as_mut()
            .poll(cx)
    }
}

/// The deadline came first.
pub(crate) struct TooLate {
    /// Whether the work may have been done.
    pub(crate) executed: Executed,
    /// What is still to be counted; nobody else has counted it.
    pub(crate) admission: Option<Admission<Arc<Shared>>>,
}

impl<T> Future for Waiting<T> {
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
        if this.timer.deadline.is_none() {
            return Poll::Pending;
        }
        if !this.polled {
            // Most calls have their answer by the next turn: no timer for those, for it would
            // cost as much as the call.
            this.polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match this.timer.poll(&this.cell.shared.clock, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(this.give_up()),
        }
    }
}

impl<T> Waiting<T> {
    fn give_up(&mut self) -> Result<T, TooLate> {
        self.finished = true;
        let (executed, admission, worker) = {
            let mut state = self.cell.lock();
            if let Some(answer) = state.answer.take() {
                return Ok(answer);
            }
            let executed = match state.phase {
                Phase::Queued => Executed::No,
                _ => Executed::Maybe,
            };
            state.phase = Phase::Abandoned;
            (executed, state.admission.take(), state.worker.take())
        };
        if let Some(worker) = worker {
            worker.wake();
        }
        let shared = &self.cell.shared;
        Err(TooLate {
            executed,
            admission: admission.map(|held| Admission::new(Arc::clone(shared), held)),
        })
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (admission, worker) = {
            let mut state = self.cell.lock();
            if matches!(state.phase, Phase::Done | Phase::Abandoned) {
                return;
            }
            state.phase = Phase::Abandoned;
            (state.admission.take(), state.worker.take())
        };
        if let Some(held) = admission {
            // A panic that unwinds here is the caller's own: a worker's is caught.
            self.cell.shared.forsake(held, false);
        }
        if let Some(worker) = worker {
            worker.wake();
        }
    }
}

/// The verdict on an attempt whose time is over.
pub(crate) fn timed_out(shared: &Shared) -> Verdict {
    Verdict::from(Symptom::Timeout).judged(shared)
}

/// Work with a deadline, in the caller's own task: `None` when the deadline came first.
pub(crate) async fn bounded<F: Future>(
    clock: &Clock,
    deadline: Option<Time>,
    work: F,
) -> Option<F::Output> {
    let mut work = std::pin::pin!(work);
    let mut timer = Timer::new(deadline);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.poll(clock, cx).map(|()| None),
    })
    .await
}
