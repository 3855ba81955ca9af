//! A pool of dependencies, of which one answers each call.
//!
//! It has no breaker, no limits and no workers of its own: each member has those.

use std::sync::Arc;

use super::model_route::ModelRoute;
use super::route::{HttpRoute, RouteKind, RouteTable};
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
