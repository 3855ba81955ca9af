//! The dependencies of a runtime, with their types erased.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use breakerbox_policy::{ChaosSettings, DependencySettings};
use futures_util::future::BoxFuture;

use super::reload::{self, DependencyReload};
use super::status::DependencyStatus;
use crate::call::core::WorkerSlot;
use crate::client::{self, Client};
use crate::dependency::Dependency;
use crate::event::EventKind;
use crate::state::counts::LatencyBuckets;
use crate::state::{Route, Shared};
use crate::supervisor::Condition;

/// A dependency of any type.
pub(super) trait AnyDependency: Send + Sync {
    fn client(&self) -> &dyn Any;
    fn shared(&self) -> &Arc<Shared>;
    fn status(&self) -> DependencyStatus;
    fn settings(&self) -> Arc<DependencySettings>;
    fn latency(&self) -> LatencyBuckets;
    fn drain(&self);
    fn wake_workers(&self);
    fn stop(&self);
    fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str);
    /// Returns this dependency as a type-erased fallback, for callers that know its request and
    /// response types.
    fn erased_fallback(&self) -> Box<dyn Any>;
    fn falls_back_on(&self) -> Vec<String>;
    fn is_stopped(&self) -> bool;
    /// Returns the number of its workers.
    fn worker_count(&self) -> usize;
    /// Returns the numbers of its workers that were given up, or that wait for their next try.
    fn workers_given_up(&self) -> Vec<usize>;
    /// Returns true if it takes no new calls any more: its name is free.
    fn is_leaving(&self) -> bool;
    /// Makes its parts those that speak for the dependency, or not.
    fn set_current(&self, current: bool);
    /// Applies the current configuration.
    fn follow<'a>(
        &'a self,
        given: &'a DependencySettings,
        by: &'a str,
    ) -> BoxFuture<'a, Option<DependencyReload>>;
}

impl<D: Dependency> AnyDependency for Client<D> {
    fn client(&self) -> &dyn Any {
        self
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.core.shared
    }

    fn status(&self) -> DependencyStatus {
        // Its answers were looked at before: their listeners must not run under the registry's lock.
        DependencyStatus::of(&self.core)
    }

    fn settings(&self) -> Arc<DependencySettings> {
        Client::settings(self)
    }

    fn latency(&self) -> LatencyBuckets {
        self.core.shared.totals.latency_buckets()
    }

    fn drain(&self) {
        let shared = &self.core.shared;
        // SUP-7: new calls are refused, and calls that were accepted go on.
        shared.set_route(Route::Draining);
        shared.events.emit(&shared.name, EventKind::Draining);
    }

    fn wake_workers(&self) {
        for worker in &self.core.workers {
            worker.queue.wake_worker();
        }
    }

    fn stop(&self) {
        self.core.stop();
    }

    fn set_chaos(&self, settings: Option<ChaosSettings>, by: &str) {
        Client::set_chaos(self, settings, by);
    }

    fn erased_fallback(&self) -> Box<dyn Any> {
        client::erased(self.clone())
    }

    fn falls_back_on(&self) -> Vec<String> {
        self.core.fallbacks.depend_on()
    }

    fn worker_count(&self) -> usize {
        self.core.workers.len()
    }

    fn workers_given_up(&self) -> Vec<usize> {
        let given_up = |slot: &WorkerSlot<D>| {
            let is_down = slot.mail.health.condition() != Condition::Running;
            slot.parked().is_some() || is_down && self.core.shared.worker_route() == Route::Parked
        };
        let workers = (1..).zip(&self.core.workers);
        let chosen = workers.filter(|(_, slot)| given_up(slot));
        chosen.map(|(number, _)| number).collect()
    }

    fn is_stopped(&self) -> bool {
        self.core.shared.route() == Route::Stopped
    }

    fn is_leaving(&self) -> bool {
        matches!(self.core.shared.route(), Route::Stopped | Route::Draining)
    }

    fn set_current(&self, current: bool) {
        self.core.is_current.store(current, Ordering::Release);
    }

    fn follow<'a>(
        &'a self,
        given: &'a DependencySettings,
        by: &'a str,
    ) -> BoxFuture<'a, Option<DependencyReload>> {
        Box::pin(reload::apply_configuration(&self.core, given, by))
    }
}
