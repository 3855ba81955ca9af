//! A pool of dependencies, of which one answers each call.
//!
//! It has no breaker, no limits and no workers of its own: each member has those.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};

use super::model_route::ModelRoute;
use super::pool_status::{PoolMember, PoolStatus};
use super::route::{HttpRoute, RouteKind, RouteTable};
use crate::Readiness;
use crate::config::{PoolChoice, PoolConfig};

/// The route of a pool.
pub(super) struct PoolRoute {
    pub(super) name: Arc<str>,
    config: PoolConfig,
}

impl PoolRoute {
    pub(super) fn new(name: &str, config: &PoolConfig) -> Self {
        Self {
            name: Arc::from(name),
            config: config.clone(),
        }
    }

    /// Returns true if it was made of this configuration.
    pub(super) fn is_of(&self, config: &PoolConfig) -> bool {
        self.config == *config
    }

    /// Returns the dialect of its members, if they are models.
    pub(super) fn model(&self, routes: &RouteTable) -> Option<ModelRoute> {
        self.config
            .members
            .iter()
            .find_map(|name| match routes.get(name.as_str())? {
                RouteKind::Http(route) => route.model.clone(),
                _ => None,
            })
    }

    /// Returns its state.
    pub(super) fn status(&self, routes: &RouteTable) -> PoolStatus {
        let members = self.config.members.iter();
        let members = members.filter_map(|name| match routes.get(name.as_str())? {
            RouteKind::Http(route) => Some(PoolMember::of(route)),
            _ => None,
        });
        PoolStatus {
            name: self.name.to_string(),
            is_ordered: self.config.choose == PoolChoice::First,
            members: members.collect(),
        }
    }

    /// Waits until a member would take a call, for up to `wait`. Returns the readiness of that member,
    /// or else the one with the shortest time to wait.
    pub(super) async fn ready(
        &self,
        routes: &ArcSwap<RouteTable>,
        key: Option<&str>,
        wait: Duration,
    ) -> Readiness {
        const LOOK: Duration = Duration::from_millis(20);
        let end = Instant::now() + wait;
        loop {
            let members = self.members(&routes.load());
            let all = members.iter().map(|member| member.client.readiness(key));
            let best = all.min_by_key(|one| {
                let wait = one.retry_after.unwrap_or(Duration::MAX);
                (one.available == 0, wait)
            });
            let best = best.unwrap_or_else(Readiness::of_none);
            let now = Instant::now();
            if best.available > 0 || now >= end {
                return best;
            }
            sleep_until((now + LOOK).min(end)).await;
        }
    }

    /// Returns the members that are there, in the order in which they are asked.
    pub(super) fn members(&self, routes: &RouteTable) -> Vec<Arc<HttpRoute>> {
        let names = self.config.members.iter();
        let mut members: Vec<Arc<HttpRoute>> = names
            .filter_map(|name| match routes.get(name.as_str())? {
                RouteKind::Http(route) => Some(Arc::clone(route)),
                _ => None,
            })
            .collect();
        if self.config.choose == PoolChoice::LeastBusy {
            // LLM-21: among equals, the order of the configuration.
            members.sort_by_cached_key(|member| member.client.in_flight());
        }
        members
    }
}
