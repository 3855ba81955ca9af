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

use breakerbox_policy::{Class, Executed, Time};
use tokio::time::Sleep;

use crate::admission::{Admission, Settled};
use crate::clock::Clock;
use crate::dependency::Verdict;

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

/// The state that caller and worker share.
struct Cell<T> {
    phase: Phase,
    admission: Option<Admission>,
    answer: Option<T>,
    caller: Option<Waker>,
    worker: Option<Waker>,
}

impl<T> Cell<T> {
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

fn lock<T>(cell: &Mutex<Cell<T>>) -> MutexGuard<'_, Cell<T>> {
    // No user code runs under the lock.
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the two ends for one attempt.
pub(crate) fn reply<T>(
    admission: Admission,
    clock: &Clock,
    deadline: Option<Time>,
) -> (Replier<T>, Waiting<'_, T>) {
    let cell = Arc::new(Mutex::new(Cell {
        phase: Phase::Queued,
        admission: Some(admission),
        answer: None,
        caller: None,
        worker: None,
    }));
    let waiting = Waiting {
        cell: Arc::clone(&cell),
        clock,
        timer: Timer::new(deadline),
        polled: false,
    };
    (Replier { cell }, waiting)
}

/// Whether queued work may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Go,
    /// Nobody waits for it any more (rule CALL-4).
    Deserted,
    /// The breaker has opened since; it is still to be refused.
    Overtaken,
}

/// The worker's end. It answers exactly once; whoever drops it unanswered must have said why.
pub(crate) struct Replier<T> {
    cell: Arc<Mutex<Cell<T>>>,
}

impl<T: Send + 'static> Replier<T> {
    /// Notes that the work begins, if it still may.
    pub(crate) fn begin(&self, now: Time) -> Begin {
        let mut cell = lock(&self.cell);
        if cell.phase != Phase::Queued {
            return Begin::Deserted;
        }
        if let Some(admission) = &mut cell.admission {
            if admission.is_overtaken() {
                return Begin::Overtaken;
            }
            admission.begin(now);
        }
        cell.phase = Phase::Begun;
        Begin::Go
    }

    /// Whether the caller has gone; the worker is woken when it goes.
    pub(crate) fn poll_abandoned(&self, cx: &Context<'_>) -> bool {
        let mut cell = lock(&self.cell);
        if cell.phase == Phase::Abandoned {
            return true;
        }
        match &mut cell.worker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        false
    }

    /// Whether the work has begun.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(lock(&self.cell).phase, Phase::Queued)
    }

    /// Counts the outcome and then hands the answer over.
    pub(crate) fn settle(self, verdict: Verdict, now: Time, answer: T) {
        let admission = {
            let mut cell = lock(&self.cell);
            if cell.phase == Phase::Abandoned {
                return;
            }
            cell.phase = Phase::Settling;
            cell.admission.take()
        };
        let shared = admission.as_ref().map(|held| Arc::clone(held.shared()));
        match admission.map(|held| held.settle(verdict, now)) {
            Some(Settled::Owed(mut report)) => {
                let cell = self.cell;
                report.then = Some(Box::new(move || hand_over(&cell, answer)));
                match shared {
                    Some(shared) => shared.report(report),
                    // Dropping a report runs what follows it.
                    None => drop(report),
                }
            }
            Some(Settled::Counted) | None => hand_over(&self.cell, answer),
        }
    }

    /// Gives the permit back unused and hands the answer over: the work was not begun.
    pub(crate) fn refuse(self, answer: T) {
        let admission = lock(&self.cell).admission.take();
        if let Some(admission) = admission {
            admission.release();
        }
        hand_over(&self.cell, answer);
    }
}

fn hand_over<T>(cell: &Mutex<Cell<T>>, answer: T) {
    let waker = lock(cell).finish(answer);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The caller's end: resolves with the answer, or with how far it had come at the deadline.
///
/// # Cancel safety   Dropped, it tells the worker, which drops the work; the outcome is
/// `cancelled`.
pub(crate) struct Waiting<'a, T> {
    cell: Arc<Mutex<Cell<T>>>,
    clock: &'a Clock,
    timer: Timer,
    polled: bool,
}

/// When to stop waiting. Nothing is armed until a call is seen to be slow.
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
    pub(crate) admission: Option<Admission>,
}

impl<T> Future for Waiting<'_, T> {
    type Output = Result<T, TooLate>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        {
            let mut cell = lock(&this.cell);
            if let Some(answer) = cell.answer.take() {
                return Poll::Ready(Ok(answer));
            }
            match &mut cell.caller {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                waker => *waker = Some(cx.waker().clone()),
            }
        }
        if !this.polled {
            // A worker on this thread runs before us in the next turn and mostly has the answer
            // by then: no timer for such a call, which would cost as much as the call.
            this.polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match this.timer.poll(this.clock, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(this.give_up()),
        }
    }
}

impl<T> Waiting<'_, T> {
    fn give_up(&mut self) -> Result<T, TooLate> {
        let (executed, admission, worker) = {
            let mut cell = lock(&self.cell);
            if let Some(answer) = cell.answer.take() {
                return Ok(answer);
            }
            let executed = match cell.phase {
                Phase::Queued => Executed::No,
                _ => Executed::Maybe,
            };
            cell.phase = Phase::Abandoned;
            (executed, cell.admission.take(), cell.worker.take())
        };
        if let Some(worker) = worker {
            worker.wake();
        }
        Err(TooLate {
            executed,
            admission,
        })
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let (admission, worker) = {
            let mut cell = lock(&self.cell);
            if matches!(cell.phase, Phase::Done | Phase::Abandoned) {
                return;
            }
            cell.phase = Phase::Abandoned;
            (cell.admission.take(), cell.worker.take())
        };
        drop(admission);
        if let Some(worker) = worker {
            worker.wake();
        }
    }
}

/// The verdict on an attempt whose time is over.
pub(crate) fn timed_out() -> Verdict {
    Verdict::from(Class::Failure)
}

/// Work with a deadline, in the caller's own task: `None` when the deadline came first.
pub(crate) struct Bounded<'a, F> {
    clock: &'a Clock,
    timer: Timer,
    work: Pin<Box<F>>,
}

impl<'a, F: Future> Bounded<'a, F> {
    pub(crate) fn new(clock: &'a Clock, deadline: Option<Time>, work: F) -> Self {
        Self {
            clock,
            timer: Timer::new(deadline),
            work: Box::pin(work),
        }
    }
}

impl<F: Future> Future for Bounded<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(result) = this.work.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        this.timer.poll(this.clock, cx).map(|()| None)
    }
}
