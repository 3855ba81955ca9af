//! The breakers of a runtime for a fleet: their state for its child, and its orders to them.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::fleet::RateInput;
use breakerbox_policy::{BreakerCommand, PauseReason, Suspicion};

use super::{Runtime, WeakRuntime};
use crate::breaker::fleet::{FleetBreaker, FleetView, adopt_pause, suspect};
use crate::breaker::judgement::operate;
use crate::breaker::message::OperateBreaker;
use crate::event::{Event, EventKind, EventListener};
use crate::limits::rate::share::{RateLink, SharedRateView};

impl Runtime {
    /// Returns the state of a breaker for a fleet, or `None` if there is none of this name and key.
    #[doc(hidden)]
    #[must_use]
    pub fn fleet_view(&self, of: FleetBreaker<'_>) -> Option<FleetView> {
        let one = self.registry().get(of.dependency).cloned()?;
        let scope = of.scope(one.shared())?;
        Some(FleetView::of(one.shared(), scope.as_deref()))
    }

    /// Lets a breaker take the evidence of other replicas into account, or no longer.
    #[doc(hidden)]
    pub fn suspect(&self, of: FleetBreaker<'_>, suspicion: Option<Suspicion>) {
        let one = self.registry().get(of.dependency).cloned();
        if let Some(one) = one
            && let Some(scope) = of.scope(one.shared())
        {
            suspect(one.shared(), &scope, suspicion);
        }
    }

    /// Lets all calls of a dependency, or of one of its keys, wait for a pause that another replica
    /// was asked for. Returns true if it became longer by it.
    #[doc(hidden)]
    pub fn adopt_pause(
        &self,
        of: FleetBreaker<'_>,
        pause: (PauseReason, Duration),
        by: &str,
    ) -> bool {
        let one = self.registry().get(of.dependency).cloned();
        one.is_some_and(|one| {
            let scope = of.scope(one.shared());
            scope.is_some_and(|scope| adopt_pause(one.shared(), scope.as_deref(), pause, by))
        })
    }

    /// Carries out a command of the fleet on a breaker. There may be none of this name and key, or its
    /// state may not allow the command: neither is a failure here.
    #[doc(hidden)]
    pub async fn operate_for_fleet(&self, of: FleetBreaker<'_>, command: BreakerCommand) {
        if of.key.is_none() {
            let _ = self.operate(of.dependency, command).await;
            return;
        }
        let one = self.registry().get(of.dependency).cloned();
        if let Some(one) = one
            && let Some(key) = of.scope(one.shared())
        {
            let note = None;
            let _ = operate(one.shared(), OperateBreaker { key, command, note });
        }
    }

    /// Returns the keys of a dependency that have a breaker at present.
    #[doc(hidden)]
    #[must_use]
    pub fn keys_of(&self, dependency: &str) -> Vec<Arc<str>> {
        let one = self.registry().get(dependency).cloned();
        one.map_or_else(Vec::new, |one| one.shared().keys.names())
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
