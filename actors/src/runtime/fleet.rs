//! The breakers of a runtime for a fleet: their state for its child, and its orders to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use breakerbox_policy::fleet::RateInput;
use breakerbox_policy::{BreakerCommand, MeterSettings, PauseReason, Suspicion};

use super::{Runtime, WeakRuntime};
use crate::breaker::fleet::{FleetBreaker, FleetView, adopt_pause, suspect};
use crate::breaker::judgement::operate;
use crate::breaker::message::OperateBreaker;
use crate::event::{Event, EventKind, EventListener};
use crate::limits::metered::MeteredLimit;
use crate::limits::rate::share::{RateLink, RateShare, SharedLimit, SharedRateView};
use crate::sync::LockExt;

/// The limits of amounts that a fleet has together. They live as long as their owners.
pub(super) struct SharedMeters {
    /// By dependency, and by a name that the dependency has for it.
    shares: BTreeMap<(String, String), Weak<RateShare>>,
    /// Number of live replicas.
    replicas: u32,
}

impl Default for SharedMeters {
    fn default() -> Self {
        Self {
            shares: BTreeMap::new(),
            replicas: 1,
        }
    }
}

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
        let mut meters = self.inner.shared_meters.acquire();
        meters.replicas = replicas;
        let shares: Vec<_> = meters.shares.values().filter_map(Weak::upgrade).collect();
        drop(meters);
        for share in shares {
            share.set_replicas(replicas);
        }
    }

    /// Returns a limit of amounts that all replicas of a fleet have together: the present one of this
    /// name of the dependency, with these settings, or else a new one. Before a fleet is started it is a
    /// limit of this replica alone.
    #[doc(hidden)]
    #[must_use]
    pub fn shared_meter(
        &self,
        (dependency, name): (&str, &str),
        settings: MeterSettings,
        max_wait: Duration,
    ) -> MeteredLimit {
        let limit = SharedLimit::Metered(settings, max_wait);
        let mut meters = self.inner.shared_meters.acquire();
        meters.shares.retain(|_, share| share.strong_count() > 0);
        let key = (dependency.to_owned(), name.to_owned());
        let share = match meters.shares.get(&key).and_then(Weak::upgrade) {
            Some(share) => {
                share.reconfigure(limit);
                share
            }
            None => {
                let clock = self.clock().clone();
                Arc::new(RateShare::new(limit, clock, meters.replicas))
            }
        };
        meters.shares.insert(key, Arc::downgrade(&share));
        MeteredLimit::of_fleet(share)
    }

    /// Returns the names of a dependency's limits that all replicas of a fleet have together, with their
    /// states. That of the rate limit is empty.
    #[doc(hidden)]
    #[must_use]
    pub fn shared_limits(&self, dependency: &str) -> Vec<(String, SharedRateView)> {
        let rate = self.rate_share(dependency);
        let rate = rate.map(|share| (String::new(), share.view()));
        let meters = self.inner.shared_meters.acquire();
        let of = |name: &str| (dependency.to_owned(), name.to_owned());
        let own = meters.shares.range(of("")..);
        let own = own.take_while(|((owner, _), _)| owner == dependency);
        let own = own.filter_map(|((_, name), share)| {
            let view = share.upgrade()?.view();
            Some((name.clone(), view))
        });
        rate.into_iter().chain(own).collect()
    }

    /// Returns the state of a limit of a dependency that all replicas have together, or `None` if it has
    /// none of this name. That of the rate limit is empty.
    #[doc(hidden)]
    #[must_use]
    pub fn shared_limit(&self, dependency: &str, name: &str) -> Option<SharedRateView> {
        Some(self.share(dependency, name)?.view())
    }

    /// Passes an event of the fleet to such a limit.
    #[doc(hidden)]
    pub fn feed_limit(&self, (dependency, name): (&str, &str), input: RateInput, link: &RateLink) {
        if let Some(share) = self.share(dependency, name) {
            share.feed(input, link);
        }
    }

    fn share(&self, dependency: &str, name: &str) -> Option<Arc<RateShare>> {
        if name.is_empty() {
            return self.rate_share(dependency);
        }
        let key = (dependency.to_owned(), name.to_owned());
        let meters = self.inner.shared_meters.acquire();
        meters.shares.get(&key)?.upgrade()
    }

    fn rate_share(&self, dependency: &str) -> Option<Arc<RateShare>> {
        let one = self.registry().get(dependency).cloned()?;
        one.shared().rate_share()
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
