//! Changes of the routes: dependencies are added, changed, replaced and removed without a gap.
//!
//! Each change is made by a task of its own, so that a caller that stops waiting leaves nothing half
//! done.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::caller_auth::AuthTable;
use super::mcp::endpoint_front::EndpointFront;
use super::mcp::group::{GroupSessions, McpGroup};
use super::model_figures::ModelFigureTable;
use super::pool_route::PoolRoute;
use super::prober::Prober;
use super::route::{HttpRoute, RouteKind, RouteShared, RouteTable};
use super::trace::Tracing;
use super::{AddError, AddOutcome};
use crate::Runtime;
use crate::buffer_budget::BufferBudget;
use crate::config::{CallerAuth, DependencyConfig, GatewayConfig};
use crate::lock::LockExt as _;
use crate::mcp::McpSettings;
use crate::sidecar::gateway::mcp::endpoint::McpEndpoint;

/// The routes, and the parts that new ones are made of. Cheap to clone.
#[derive(Clone)]
pub(super) struct RouteDirectory {
    runtime: Runtime,
    pub(super) routes: Arc<ArcSwap<RouteTable>>,
    pub(super) config: Arc<ArcSwap<GatewayConfig>>,
    pub(super) auth: Arc<ArcSwap<AuthTable>>,
    pub(super) tracing: Tracing,
    pub(super) budget: BufferBudget,
    pub(super) figures: ModelFigureTable,
    /// Names of dependencies that the start has not come to yet.
    pub(super) awaited: Arc<ArcSwap<BTreeSet<String>>>,
    /// Number of the gateway's threads.
    threads: usize,
    /// The parts that outlive the servers, by name.
    fronts: Arc<Mutex<HashMap<String, Arc<EndpointFront>>>>,
    /// The tasks that probe dependencies, by name.
    probers: Arc<Mutex<HashMap<String, Prober>>>,
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
            auth: Arc::new(ArcSwap::from_pointee(
                AuthTable::default().with_default(config.auth.as_ref()),
            )),
            tracing,
            budget: BufferBudget::new(config.max_buffered),
            figures: ModelFigureTable::default(),
            awaited: Arc::default(),
            threads,
            fronts: Arc::default(),
            probers: Arc::default(),
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

    /// Sets the credentials of callers of every dependency without a choice of its own.
    pub(super) fn set_default_auth(&self, auth: Option<&CallerAuth>) {
        self.auth.rcu(|table| table.with_default(auth));
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
        let put = self.put_route(name, config, url, by).await;
        if put.is_ok() {
            self.follow_probe(name, config).await;
        }
        put
    }

    /// Makes the task that probes a dependency what the configuration asks for.
    async fn follow_probe(&self, name: &str, config: &DependencyConfig) {
        let probe = config.probe.as_ref();
        let former = {
            let mut probers = self.probers.acquire();
            let same = |prober: &Prober| probe.is_some_and(|probe| prober.is_of(probe));
            if probers.get(name).is_some_and(same) {
                return;
            }
            probers.remove(name)
        };
        if let Some(former) = former {
            // Two would show their figures in turn.
            former.end().await;
        }
        let route = self.routes.load().get(name).cloned();
        let Some(RouteKind::Http(route)) = route else {
            return;
        };
        match probe {
            None => route.client.show_active_probes(None),
            Some(probe) => {
                let prober = Prober::start(&self.runtime, &self.routes, name, probe.clone());
                self.probers.acquire().insert(name.to_owned(), prober);
            }
        }
    }

    async fn put_route(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        by: &str,
    ) -> Result<AddOutcome, AddError> {
        let follow_checks = || {
            self.auth.rcu(|table| table.with(name, config));
            if let Some(front) = self.fronts.acquire().get(name) {
                front.follow(config);
            }
        };
        let former = self.routes.load().get(name).cloned();
        if let Some(former) = former
            .as_ref()
            .filter(|route| !route.is_replaced_by(config))
        {
            let asked = (config, url);
            let changed = former.follow(&self.runtime, asked, self.shared(), &follow_checks)?;
            if let Some(route) = changed {
                self.set(name, route);
            }
            return Ok(AddOutcome::Kept);
        }
        let former_server = former.as_ref().filter(|route| route.is_of_runtime());
        let replaces = former_server.is_some();
        let route = self.start(name, (config, url), former.as_ref()).await?;
        // MCP-6: a dependency is never reachable without the check that it is to have, and goes on
        // with its own while a new version does not start.
        follow_checks();
        // EDGE-6: the name always leads to one of them.
        let group = match &route {
            RouteKind::Group(group) => Some(Arc::clone(group)),
            _ => None,
        };
        self.set(name, route);
        let Some(former) = former else {
            return Ok(AddOutcome::Started);
        };
        if let Some(group) = group {
            // MCP-5: its callers hear of the change, and find the new members.
            group.tell_members_changed();
        }
        if config.members.is_some() || config.pool.is_some() {
            if replaces && let Some(leaving) = self.runtime.begin_remove(name, by).await {
                tokio::spawn(leaving.end());
            }
            return Ok(AddOutcome::Restarted);
        }
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
        (config, url): (&DependencyConfig, &str),
        former: Option<&RouteKind>,
    ) -> Result<RouteKind, AddError> {
        if let Some(members) = &config.members {
            // The table holds the group, so the group must not hold the table.
            let routes = Arc::downgrade(&self.routes);
            let find = move |member: &str| match routes.upgrade()?.load().get(member)? {
                RouteKind::Mcp(endpoint) => Some(Arc::clone(endpoint)),
                _ => None,
            };
            // EDGE-6: callers of a group keep their sessions when its members change.
            let sessions = match former {
                Some(RouteKind::Group(former)) => Arc::clone(&former.sessions),
                _ => GroupSessions::new(&self.budget),
            };
            let group = McpGroup::new(name, members, find, sessions);
            return Ok(RouteKind::Group(Arc::new(group)));
        }
        if let Some(pool) = &config.pool {
            return Ok(RouteKind::Pool(Arc::new(PoolRoute::new(name, pool))));
        }
        let replaces = former.is_some_and(RouteKind::is_of_runtime);
        let runtime = &self.runtime;
        Ok(match McpSettings::of_config(config) {
            Some(settings) => {
                let made_of = (config, settings);
                let front = (self.front(name, config), &self.budget);
                let former = match former {
                    Some(RouteKind::Mcp(former)) => Some(&**former),
                    _ => None,
                };
                let place = (replaces, former);
                let endpoint = McpEndpoint::open(runtime, name, made_of, front, place);
                RouteKind::Mcp(Arc::new(endpoint.await?))
            }
            None => {
                let (made_of, own) = ((config, url), self.shared());
                let route = HttpRoute::start(runtime, name, made_of, own, replaces);
                RouteKind::Http(Arc::new(route.await?))
            }
        })
    }

    /// Returns the present settings of a dependency that this configuration replaces as a whole.
    #[cfg(feature = "cli")]
    pub(super) fn settings_until_swap(
        &self,
        name: &str,
        config: &DependencyConfig,
    ) -> Option<breakerbox_policy::DependencySettings> {
        let routes = self.routes.load();
        let route = routes.get(name)?;
        let settings = match route {
            RouteKind::Http(route) => route.client.settings(),
            RouteKind::Mcp(endpoint) => endpoint.client.client().settings(),
            RouteKind::Group(_) | RouteKind::Pool(_) => return None,
        };
        route
            .is_replaced_by(config)
            .then(|| settings.as_ref().clone())
    }

    /// Removes a dependency; false if there is none.
    pub(super) async fn remove(&self, name: &str, by: &str) -> bool {
        let turn = self.turn(name);
        let _one_at_a_time = turn.lock().await;
        let was_there = self.routes.load().contains_key(name);
        self.change(|routes| drop(routes.remove(name)));
        self.auth.rcu(|table| table.without(name));
        self.fronts.acquire().remove(name);
        self.probers.acquire().remove(name);
        if was_there && let Some(leaving) = self.runtime.begin_remove(name, by).await {
            tokio::spawn(leaving.end());
        }
        was_there
    }

    /// Returns the front of a server, with the figures of the one that had its name before.
    fn front(&self, name: &str, config: &DependencyConfig) -> Arc<EndpointFront> {
        let mut fronts = self.fronts.acquire();
        let new = || Arc::new(EndpointFront::new(config));
        Arc::clone(fronts.entry(name.to_owned()).or_insert_with(new))
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
