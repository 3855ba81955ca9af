//! Injected faults, for tests and drills.
//!
//! The kernel draws the attempts that are hit; this module applies the faults.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use breakerbox_policy::{Chaos, ChaosSettings, FaultInjection, InjectedFault, Time};

use crate::client::Client;
use crate::clock::random;
use crate::dependency::{Dependency, Shared};
use crate::event::EventKind;

/// The chaos of a dependency, if there is any.
#[derive(Debug, Default)]
pub(crate) struct ChaosSwitch {
    is_set: AtomicBool,
    chaos: Mutex<Option<Chaos>>,
}

impl ChaosSwitch {
    pub(crate) fn set(&self, settings: Option<ChaosSettings>, now: Time) {
        let mut chaos = self.lock();
        *chaos = settings.map(|settings| Chaos::new(settings, now));
        self.is_set.store(chaos.is_some(), Ordering::Release);
    }

    /// The chaos that is active now, if there is any.
    #[inline]
    pub(crate) fn active(&self, now: Time) -> Option<Chaos> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        self.lock().filter(|chaos| chaos.is_active(now))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Chaos>> {
        self.chaos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failure of an attempt by an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injected;

impl Shared {
    /// Returns the fault for an attempt that begins now; `None` if there is none.
    #[inline]
    pub(crate) fn strike(&self, now: Time) -> Option<FaultInjection> {
        let strike = self.drill.active(now)?.strike(now, &mut random());
        (strike != FaultInjection::default()).then_some(strike)
    }

    /// Returns the fault for a closure that begins now. A closure runs in its caller's own task,
    /// which must not crash: an injected panic becomes an error.
    #[inline]
    pub(crate) fn strike_closure(&self, now: Time) -> Option<FaultInjection> {
        let FaultInjection { delay, blow } = self.strike(now)?;
        let blow = blow.map(|blow| match blow {
            InjectedFault::Panic => InjectedFault::Error,
            InjectedFault::Error | InjectedFault::Hang => blow,
        });
        Some(FaultInjection { delay, blow })
    }

    fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        self.drill.set(settings, self.clock.now());
        let by = by.to_owned();
        self.events
            .emit(&self.name, EventKind::Chaos { by, settings });
    }
}

impl<D: Dependency> Client<D> {
    /// Injects faults from now on, regardless of the settings; `None` ends them. `by` is the author
    /// of the change, for the event.
    ///
    /// Running attempts are not affected. A reload changes this only if it brings different chaos.
    pub fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        self.core.shared.set_chaos(settings, by);
    }
}

/// Applies a fault to an attempt before it reaches the dependency.
///
/// # Errors  [`Injected`] if the fault is an error.
/// # Panics  If the fault is a panic.
pub(crate) async fn struck(shared: &Shared, strike: FaultInjection) -> Result<(), Injected> {
    let FaultInjection { delay, blow } = strike;
    if !delay.is_zero() {
        let until = shared.clock.now().after(delay);
        shared.clock.sleep_until(until).await;
    }
    match blow {
        None => Ok(()),
        Some(InjectedFault::Error) => Err(Injected),
        Some(InjectedFault::Hang) => std::future::pending().await,
        Some(InjectedFault::Panic) => panic!("chaos: this attempt was made to panic"),
    }
}
