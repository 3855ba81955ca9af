//! Injected faults, for tests and drills.
//!
//! The kernel draws the attempts that are hit; this module applies the faults.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use breakerbox_policy::{Chaos, ChaosSettings, Class, FaultInjection, InjectedFault, Time};

use crate::clock::{Clock, random};
use crate::sync::LockExt;
use crate::verdict::Verdict;

/// The chaos of a dependency, if there is any.
#[derive(Debug, Default)]
pub(crate) struct ChaosSwitch {
    is_set: AtomicBool,
    chaos: Mutex<Option<Chaos>>,
}

impl ChaosSwitch {
    /// Sets the chaos. `note` runs before another thread can set it.
    pub(crate) fn set(&self, settings: Option<ChaosSettings>, now: Time, note: impl FnOnce()) {
        let mut chaos = self.lock();
        *chaos = settings.map(|settings| Chaos::new(settings, now));
        self.is_set.store(chaos.is_some(), Ordering::Release);
        note();
    }

    /// The chaos that is active now, if there is any.
    #[inline]
    pub(crate) fn active(&self, now: Time) -> Option<Chaos> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        self.lock().filter(|chaos| chaos.is_active(now))
    }

    /// Draws the fault for an attempt that begins now; `None` for most attempts.
    #[inline]
    pub(crate) fn draw(&self, now: Time) -> Option<FaultInjection> {
        let fault = self.active(now)?.draw(now, &mut random());
        (fault != FaultInjection::default()).then_some(fault)
    }

    /// Draws the fault for a closure that begins now. It runs in its caller's own task, which must
    /// not be crashed: a fault that would make a worker panic makes a closure fail.
    #[inline]
    pub(crate) fn draw_for_closure(&self, now: Time) -> Option<FaultInjection> {
        let FaultInjection { delay, fault } = self.draw(now)?;
        let fault = fault.map(|fault| match fault {
            InjectedFault::Panic => InjectedFault::Error,
            InjectedFault::Error | InjectedFault::Hang => fault,
        });
        Some(FaultInjection { delay, fault })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Chaos>> {
        self.chaos.acquire()
    }
}

/// Failure of an attempt by an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InjectedFailure;

impl InjectedFailure {
    /// Returns the verdict on such an attempt.
    pub(crate) fn verdict(self) -> Verdict {
        Verdict::from(Class::Failure)
    }
}

/// Applies a fault to an attempt before it reaches the dependency.
///
/// # Errors  [`InjectedFailure`] if the fault is an error.
/// # Panics  If the fault is a panic.
pub(crate) async fn apply_fault(
    clock: &Clock,
    fault: FaultInjection,
) -> Result<(), InjectedFailure> {
    let FaultInjection { delay, fault } = fault;
    if !delay.is_zero() {
        let until = clock.now().after(delay);
        clock.sleep_until(until).await;
    }
    match fault {
        None => Ok(()),
        Some(InjectedFault::Error) => Err(InjectedFailure),
        Some(InjectedFault::Hang) => std::future::pending().await,
        Some(InjectedFault::Panic) => panic!("chaos: this attempt was made to panic"),
    }
}
