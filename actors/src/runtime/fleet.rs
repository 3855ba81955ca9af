//! The breakers of a runtime for a fleet: their state for its child, and its orders to them.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::fleet::RateInput;
use breakerbox_policy::{PauseReason, Suspicion};

use super::{Runtime, WeakRuntime};
use crate::breaker::fleet::{FleetView, adopt_pause, suspect};
use crate::event::{Event, EventKind, EventListener};
use crate::limits::rate::share::{RateLink, SharedRateView};

impl Runtime {
    /// Returns the state of a dependency for a fleet, or `None` if none has this name.
    #[doc(hidden)]
    #[must_use]
    pub fn fleet_view(&self, name: &str) -> Option<FleetView> {
        let one = self.registry().get(name).cloned()?;
        Some(FleetView::of(one.shared()))
    }

    /// Lets a dependency's breaker take the evidence of other replicas into account, or no longer.
    #[doc(hidden)]
    pub fn suspect(&self, name: &str, suspicion: Option<Suspicion>) {
        let one = self.registry().get(name).cloned();
        if let Some(one) = one {
            suspect(one.shared(), suspicion);
        }
    }

    /// Lets all calls of a dependency wait for a pause that another replica was asked for. Returns
    /// true if it became longer by it.
    #[doc(hidden)]
    pub fn adopt_pause(&self, name: &str, pause: (PauseReason, Duration), by: &str) -> bool {
        let one = self.registry().get(name).cloned();
        one.is_some_and(|one| adopt_pause(one.shared(), pause, by))
    }

    /// Takes in the number of live replicas, this one among them.
    #[doc(hidden)]
    pub fn set_replicas(&self, replicas: u32) {
        let all: Vec<_> = self.registry().values().cloned().collect();
        for one in all {
            one.shared().set_replicas(replicas);
        }
    }

    /// Returns the state of a dependency's shared rate, or `None` if it has none.
    #[doc(hidden)]
    #[must_use]
    pub fn shared_rate(&self, name: &str) -> Option<SharedRateView> {
        let one = self.registry().get(name).cloned()?;
        Some(one.shared().rate_share()?.view())
    }

    /// Passes an event of the fleet to a dependency's shared rate.
    #[doc(hidden)]
    pub fn feed_rate(&self, name: &str, input: RateInput, link: &RateLink) {
        let one = self.registry().get(name).cloned();
        if let Some(share) = one.and_then(|one| one.shared().rate_share()) {
            share.feed(input, link);
        }
    }

    /// Returns the names of the dependencies.
    #[doc(hidden)]
    #[must_use]
    pub fn dependency_names(&self) -> Vec<String> {
        self.registry().keys().cloned().collect()
    }

    /// Emits an event of the fleet.
    #[doc(hidden)]
    pub fn tell_of_fleet(&self, subject: &str, kind: EventKind) {
        self.inner.around.events.emit(&Arc::from(subject), kind);
    }

    /// Registers a listener that is called on the thread that emits, for breakers that ask for the
    /// fleet's lease too. It must not block.
    #[doc(hidden)]
    pub fn listen_for_fleet(
        &self,
        listener: impl Fn(&Event) + Send + Sync + 'static,
    ) -> EventListener {
        self.inner.around.events.listen_here(listener)
    }

    /// Returns a reference that does not keep the runtime alive.
    #[doc(hidden)]
    #[must_use]
    pub fn weak(&self) -> WeakRuntime {
        self.downgrade()
    }
}
