//! Changes of the routes: dependencies are added, changed, replaced and removed without a gap.
//!
//! Each change is made by a task of its own, so that a caller that stops waiting leaves nothing half
//! done.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::route::{FollowOutcome, HttpRoute, RouteKind, RouteShared, RouteTable};
use super::trace::Tracing;
use super::{AddError, AddOutcome};
use crate::Runtime;
use crate::buffer_budget::BufferBudget;
use crate::config::{DependencyConfig, GatewayConfig};
use crate::lock::LockExt as _;
use crate::mcp::McpSettings;
use crate::sidecar::gateway::mcp::endpoint::McpEndpoint;

/// The routes, and the parts that new ones are made of. Cheap to clone.
#[derive(Clone)]
pub(super) struct RouteDirectory {
    runtime: Runtime,
    pub(super) routes: Arc<ArcSwap<RouteTable>>,
    pub(super) config: Arc<ArcSwap<GatewayConfig>>,
    pub(super) tracing: Tracing,
    pub(super) budget: BufferBudget,
    /// Number of the gateway's threads.
    threads: usize,
    /// Serializes the changes of each name.
    turns: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl RouteDirectory {
    pub(super) fn new(
        runtime: &Runtime,
        config: &GatewayConfig,
        tracing: Tracing,
        threads: usize,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            routes: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(config.clone())),
            tracing,
            budget: BufferBudget::new(config.max_buffered),
            threads,
            turns: Arc::default(),
        }
    }

    /// Makes a change in a task of its own. `None`: the surrounding runtime ended before it.
    pub(super) async fn change_by<T, F>(&self, change: impl FnOnce(Self) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        tokio::spawn(change(self.clone())).await.ok()
    }

    /// Returns the parts that all routes share.
    fn shared(&self) -> RouteShared<'_> {
        RouteShared {
            threads: self.threads,
            tracing: &self.tracing,
            budget: &self.budget,
        }
    }

    /// Starts a dependency, or applies the configuration to a running one.
    pub(super) async fn put(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        by: &str,
    ) -> Result<AddOutcome, AddError> {
        let turn = self.turn(name);
        let _one_at_a_time = turn.lock().await;
        let former = self.routes.load().get(name).cloned();
        if let Some(former) = &former {
            let gateway = self.shared();
            match former.follow(&self.runtime, (config, url), gateway)? {
                FollowOutcome::Same => return Ok(AddOutcome::Kept),
                FollowOutcome::Changed(route) => {
                    self.set(name, route);
                    return Ok(AddOutcome::Kept);
                }
                FollowOutcome::NeedsStart => {}
            }
        }
        let replaces = former.is_some();
        let route = self.start(name, config, url, replaces).await?;
        // EDGE-6: the name always leads to one of them.
        self.set(name, route);
        let Some(former) = former else {
            return Ok(AddOutcome::Started);
        };
        if let Some(leaving) = self.runtime.end_former(name, by) {
            tokio::spawn(async move {
                former.unused().await;
                leaving.end().await;
            });
        }
        Ok(AddOutcome::Restarted)
    }

    async fn start(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        replaces: bool,
    ) -> Result<RouteKind, AddError> {
        let runtime = &self.runtime;
        Ok(match McpSettings::of_config(config) {
            Some(settings) => {
                let made_of = (config, settings);
                let endpoint = McpEndpoint::open(runtime, name, made_of, replaces);
                RouteKind::Mcp(Arc::new(endpoint.await?))
            }
            None => {
                let (made_of, own) = ((config, url), self.shared());
                let route = HttpRoute::start(runtime, name, made_of, own, replaces);
                RouteKind::Http(Arc::new(route.await?))
            }
        })
    }

    /// Removes a dependency; false if there is none.
    pub(super) async fn remove(&self, name: &str, by: &str) -> bool {
        let turn = self.turn(name);
        let _one_at_a_time = turn.lock().await;
        let was_there = self.routes.load().contains_key(name);
        self.change(|routes| drop(routes.remove(name)));
        if was_there && let Some(leaving) = self.runtime.begin_remove(name, by).await {
            tokio::spawn(leaving.end());
        }
        was_there
    }

    /// Returns the lock of a name.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.acquire();
        Arc::clone(turns.entry(name.to_owned()).or_default())
    }

    fn set(&self, name: &str, route: RouteKind) {
        self.change(|routes| {
            routes.insert(Arc::from(name), route.clone());
        });
    }

    fn change(&self, change: impl Fn(&mut RouteTable)) {
        self.routes.rcu(|routes| {
            let mut routes = RouteTable::clone(routes);
            change(&mut routes);
            routes
        });
    }
}
