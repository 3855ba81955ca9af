//! The state that the driver and the actor of one incarnation share.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use breakerbox_policy::supervision::{PanicReport, StopCause};

use super::health::QueueFence;

/// Readiness of an incarnation to take messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not yet.
    Starting,
    /// It may take messages.
    Ready,
    /// Its start failed, for this reason.
    Failed(StopCause),
}

/// The state of one incarnation, shared by its driver and by actors that use it.
#[derive(Debug)]
pub(crate) struct Incarnation {
    fence: QueueFence,
    readiness: RefCell<Readiness>,
    /// True if `started` has returned and its context waits for nothing.
    settled: Cell<bool>,
    stopping: Cell<bool>,
    crash: RefCell<Option<PanicReport>>,
    death: RefCell<Option<StopCause>>,
}

impl Incarnation {
    pub(crate) fn new(fence: QueueFence) -> Self {
        Self {
            fence,
            readiness: RefCell::new(Readiness::Ready),
            settled: Cell::new(false),
            stopping: Cell::new(false),
            crash: RefCell::default(),
            death: RefCell::default(),
        }
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        *self.readiness.borrow_mut() = readiness;
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    pub(crate) fn settle(&self) {
        self.settled.set(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stopping.set(true);
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.readiness.borrow() == Readiness::Ready
    }

    /// Declares this incarnation crashed although no panic unwound through its driver.
    pub(crate) fn crash(&self, panic: PanicReport) {
        let mut crash = self.crash.borrow_mut();
        match crash.as_mut() {
            Some(first) => append(first, panic),
            None => *crash = Some(panic),
        }
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.crash.borrow().is_some()
    }

    pub(crate) fn take_crash(&self) -> Option<PanicReport> {
        self.crash.borrow_mut().take()
    }

    /// Returns the cause of this incarnation's end; set before any part of it is dropped.
    pub(crate) fn death(&self) -> Option<StopCause> {
        self.death.borrow().clone()
    }

    pub(crate) fn set_death(&self, cause: StopCause) {
        *self.death.borrow_mut() = Some(cause);
    }

    /// Adds a panic that happened while the incarnation was dropped.
    pub(crate) fn note_second_panic(&self, panic: PanicReport) {
        if let Ok(mut death) = self.death.try_borrow_mut() {
            match death.as_mut() {
                Some(StopCause::Crashed(first)) => append(first, panic),
                Some(other) if other.is_normal() => *other = StopCause::Crashed(panic),
                _ => {}
            }
        }
    }

    /// Returns true if another driver has taken over this one's queue.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fence.is_passed()
    }
}

fn append(first: &mut PanicReport, panic: PanicReport) {
    match &mut first.also {
        Some(next) => append(next, panic),
        empty => *empty = Some(Box::new(panic)),
    }
}

/// Runs user code and turns a panic into a report.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, PanicReport> {
    // SUP-8: user code, destructors too, is run here one at a time, so that no panic meets another.
    catch_unwind(AssertUnwindSafe(run)).map_err(panic_report)
}

thread_local! {
    /// The location of this thread's latest panic; the payload does not contain it.
    static LATEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs a panic hook that records the location of a panic and then calls the previous hook.
pub(crate) fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            // A panic inside of this thread-local's destructor cannot be recorded.
            let _ = LATEST.try_with(|latest| {
                if let Ok(mut latest) = latest.try_borrow_mut() {
                    *latest = place;
                }
            });
            before(info);
        }));
    });
}

/// Makes a report of a caught panic: its message and its location.
pub(crate) fn panic_report(payload: Box<dyn Any + Send>) -> PanicReport {
    let message = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without a message".to_owned());
    // A user's payload may panic when it is dropped; that is logged and not reported.
    if catch_unwind(AssertUnwindSafe(|| drop(payload))).is_err() {
        tracing::error!("a panic's own payload panicked while it was dropped");
    }
    let location = LATEST
        .try_with(|latest| latest.try_borrow_mut().ok().and_then(|mut one| one.take()))
        .ok()
        .flatten();
    PanicReport {
        message,
        location,
        also: None,
    }
}
