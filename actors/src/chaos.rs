//! Faults on purpose, for tests and drills.
//!
//! The kernel draws which attempts are hit; here they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use breakerbox_policy::{Blow, Chaos, ChaosSettings, Strike, Time};

use crate::client::Client;
use crate::clock::random;
use crate::dependency::{Dependency, Shared};
use crate::event::EventKind;

/// The chaos of a dependency, while there is any.
#[derive(Debug, Default)]
pub(crate) struct Drill {
    is_set: AtomicBool,
    chaos: Mutex<Option<Chaos>>,
}

impl Drill {
    pub(crate) fn set(&self, settings: Option<ChaosSettings>, now: Time) {
        let mut chaos = self.lock();
        *chaos = settings.map(|settings| Chaos::new(settings, now));
        self.is_set.store(chaos.is_some(), Ordering::Release);
    }

    /// The chaos that hits attempts now.
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

/// An attempt that was made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injected;

impl Shared {
    /// What hits an attempt that begins now; `None` when nothing does.
    #[inline]
    pub(crate) fn strike(&self, now: Time) -> Option<Strike> {
        let strike = self.drill.active(now)?.strike(now, &mut random());
        (strike != Strike::default()).then_some(strike)
    }

    /// What hits a closure that begins now. It runs in its caller's own task, which is not ours to
    /// crash: what would make a worker panic makes a closure fail.
    #[inline]
    pub(crate) fn strike_closure(&self, now: Time) -> Option<Strike> {
        let Strike { delay, blow } = self.strike(now)?;
        let blow = blow.map(|blow| match blow {
            Blow::Panic => Blow::Error,
            Blow::Error | Blow::Hang => blow,
        });
        Some(Strike { delay, blow })
    }

    fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        self.drill.set(settings, self.clock.now());
        let by = by.to_owned();
        self.events
            .emit(&self.name, EventKind::Chaos { by, settings });
    }
}

impl<D: Dependency> Client<D> {
    /// Makes faults on purpose from now on, whatever the settings say; `None` ends them. `by` is
    /// who does it, for the event.
    ///
    /// What runs already goes on. A reload changes this only when it brings other chaos.
    pub fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        self.core.shared.set_chaos(settings, by);
    }
}

/// Hits an attempt before it reaches the dependency.
///
/// # Errors  [`Injected`] when that is what hits it.
/// # Panics  When that is what hits it.
pub(crate) async fn struck(shared: &Shared, strike: Strike) -> Result<(), Injected> {
    let Strike { delay, blow } = strike;
    if !delay.is_zero() {
        let until = shared.clock.now().after(delay);
        shared.clock.sleep_until(until).await;
    }
    match blow {
        None => Ok(()),
        Some(Blow::Error) => Err(Injected),
        Some(Blow::Hang) => std::future::pending().await,
        Some(Blow::Panic) => panic!("chaos: this attempt was made to panic"),
    }
}
