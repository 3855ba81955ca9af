//! Changes to the dependencies of a running runtime: their removal, and their replacement without a
//! gap (rule EDGE-6).
//!
//! A dependency that leaves gives up its name first, in the tree too; then it drains.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::registry::AnyDependency;
use super::{Runtime, RuntimeState, check_cycle, start_error};
use crate::client::Client;
use crate::dependency::Dependency;
use crate::error::StartError;
use crate::event::EventKind;
use crate::fallback::FallbackRule;
use crate::state::Shared;
use crate::supervisor::{Group, GroupRef};
use crate::sync::LockExt;

/// Number of dependencies that have left, for their names in the tree.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// A dependency that has given up its name, and is to be ended by [`LeavingDependency::end`].
///
/// Dropped, it goes on until the runtime ends.
#[must_use = "it goes on until `end`"]
pub struct LeavingDependency {
    runtime: Runtime,
    one: Arc<dyn AnyDependency>,
    name: String,
    /// Its name in the tree.
    child: String,
    by: String,
    /// True if another one has taken its place.
    is_replaced: bool,
}

impl fmt::Debug for LeavingDependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LeavingDependency")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LeavingDependency {
    /// `child`: its name in the tree.
    fn new(
        runtime: &Runtime,
        (child, one): (String, Arc<dyn AnyDependency>),
        by: &str,
        is_replaced: bool,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            name: one.shared().name.to_string(),
            one,
            child,
            by: by.to_owned(),
            is_replaced,
        }
    }

    /// Lets its calls in flight finish within its drain time, and stops it.
    ///
    /// # Cancel safety   Dropped, the drain goes on, and its rest stays in the tree.
    pub async fn end(self) {
        let Self {
            runtime,
            one,
            name,
            child,
            by,
            is_replaced,
        } = self;
        let until = runtime.clock().now().after(one.settings().workers.drain);
        let ending = async {
            // It may have ended by itself, or been removed from the tree by the program.
            let _ = runtime.inner.root.terminate(&child).await;
            let _ = runtime.inner.root.delete(&child).await;
        };
        runtime.end_by(until, ending, || one.stop()).await;
        let mut registry = runtime.registry();
        if registry
            .get(&name)
            .is_some_and(|now| Arc::ptr_eq(now, &one))
        {
            registry.remove(&name);
        }
        let is_back = registry.contains_key(&name);
        drop(registry);
        runtime.inner.forget_leaving(&one);
        if !is_replaced && !is_back {
            let kind = EventKind::Removed { by };
            runtime.inner.around.events.emit(&Arc::from(name), kind);
        }
    }
}

impl Runtime {
    /// Removes a dependency while the others keep running: refuses its new calls, lets those in
    /// flight finish within its drain time, stops it, and frees its name. Returns false if none has
    /// this name.
    ///
    /// # Cancel safety   Dropped, the drain continues; call it again to free the name.
    pub async fn remove(&self, name: &str, by: &str) -> bool {
        match self.begin_remove(name, by).await {
            Some(leaving) => {
                leaving.end().await;
                true
            }
            None => false,
        }
    }

    /// Begins to remove a dependency: refuses its new calls, and frees its name at once. Returns
    /// `None` if none has this name.
    ///
    /// # Cancel safety   Dropped, the dependency may be draining; call it again.
    pub async fn begin_remove(&self, name: &str, by: &str) -> Option<LeavingDependency> {
        let one = self.registry().get(name).cloned()?;
        if !one.is_leaving() {
            one.drain();
        }
        let child = self.inner.note_leaving(&one);
        // It may have ended by itself, or been removed from the tree by the program, or been renamed
        // by an earlier call.
        let _ = self.inner.root.rename(name, &child).await;
        self.inner.groups.acquire().remove(name);
        Some(LeavingDependency::new(self, (child, one), by, false))
    }

    /// Returns the dependency that had the name before one was started with
    /// [`NewDependency::replacing`](crate::NewDependency::replacing), if its end was not begun yet.
    /// It takes calls until [`LeavingDependency::end`], which should begin when no caller uses it
    /// any more.
    pub fn end_former(&self, name: &str, by: &str) -> Option<LeavingDependency> {
        let former = {
            let mut former = self.inner.former.acquire();
            let found = former
                .iter()
                .position(|(_, one)| *one.shared().name == *name)?;
            former.swap_remove(found)
        };
        Some(LeavingDependency::new(self, former, by, true))
    }

    /// Replaces the fallbacks of a running dependency, and sets whether only they answer. Calls in
    /// flight keep the fallbacks they began with.
    ///
    /// # Errors  It was started without `replaceable_fallbacks`, a fallback could never answer,
    /// there would be no answer, or the fallbacks form a cycle. Nothing is then changed.
    pub fn set_fallbacks<D: Dependency>(
        &self,
        client: &Client<D>,
        rules: Vec<FallbackRule<D>>,
        fallback_only: bool,
    ) -> Result<(), StartError> {
        self.set_fallbacks_after(client, (rules, fallback_only), || ())
    }

    /// Replaces the fallbacks as [`Runtime::set_fallbacks`] does. `first` is called after all that can
    /// fail, right before the change: it makes the changes that have to be there before the new fallbacks, such as the
    /// server that they stand in for. It must not call the runtime, which waits for it.
    ///
    /// # Errors  As [`Runtime::set_fallbacks`]; `first` is not called then.
    pub fn set_fallbacks_after<D: Dependency>(
        &self,
        client: &Client<D>,
        (rules, fallback_only): (Vec<FallbackRule<D>>, bool),
        first: impl FnOnce(),
    ) -> Result<(), StartError> {
        let (name, core) = (client.name(), &client.core);
        let bad = |reason: String| StartError::BadSpec {
            name: name.to_owned(),
            reason,
        };
        if !core.fallbacks.are_replaceable {
            return Err(bad("its fallbacks are fixed".to_owned()));
        }
        if fallback_only && rules.is_empty() {
            let reason = "it answers from its fallbacks only and has none";
            return Err(bad(reason.to_owned()));
        }
        // Before the lock: a rule asks the registry for its dependency.
        if let Some(reason) = rules.iter().find_map(FallbackRule::problem) {
            return Err(bad(reason));
        }
        let asked = rules.iter().filter_map(FallbackRule::asks).collect();
        let registry = self.registry();
        check_cycle(&registry, name, asked)?;
        first();
        // In this order there is always an answer: the workers', or the new fallbacks'.
        if !fallback_only {
            core.shared.set_fallback_only(false);
        }
        core.fallbacks.replace(rules, &core.shared);
        if fallback_only {
            core.shared.set_fallback_only(true);
        }
        Ok(())
    }

    /// Returns the state around the dependency of this name, if it takes calls.
    pub(crate) fn shared_of_running(&self, name: &str) -> Option<Arc<Shared>> {
        let registry = self.registry();
        let one = registry.get(name).filter(|one| !one.is_leaving())?;
        Some(Arc::clone(one.shared()))
    }

    /// Starts a group around the state of the dependency of the same name, then makes it the one
    /// that is called. If the group does not start, nothing changes.
    ///
    /// # Cancel safety   Dropped, the former dependency goes on, and the new one is stopped again.
    pub(crate) async fn replace<D: Dependency>(
        &self,
        client: &Client<D>,
        group: Group,
    ) -> Result<(), StartError> {
        let name = client.name();
        check_cycle(&self.registry(), name, client.core.fallbacks.depend_on())?;
        let root = &self.inner.root;
        let child = leaving_name(name);
        let renamed = root.rename(name, &child).await;
        renamed.map_err(|error| start_error(name.to_owned(), error))?;
        let undone = RenameRollback {
            root,
            names: Some((child.clone(), name.to_owned())),
        };
        // EDGE-6: the new one starts beside the old one.
        if let Err(error) = self.add_group(group).await {
            undone.now().await;
            client.core.stop();
            return Err(error);
        }
        undone.disarm();
        let mut registry = self.registry();
        let former = registry.insert(name.to_owned(), Arc::new(client.clone()));
        if let Some(former) = former {
            former.set_current(false);
            self.inner.former.acquire().push((child, former));
        }
        client.core.is_current.store(true, Ordering::Release);
        drop(registry);
        // SUP-4: the former one may have been parked, and the workers of this one run already.
        client.core.unpark();
        Ok(())
    }
}

/// Gives a dependency its name in the tree back, if the one that was to replace it is not started.
struct RenameRollback<'a> {
    root: &'a GroupRef,
    names: Option<(String, String)>,
}

impl RenameRollback<'_> {
    fn disarm(mut self) {
        self.names = None;
    }

    /// The name is free again: a failed start has left nothing in the tree.
    async fn now(mut self) {
        if let Some((child, name)) = self.names.take() {
            let _ = self.root.rename(&child, &name).await;
        }
    }
}

impl Drop for RenameRollback<'_> {
    fn drop(&mut self) {
        if let Some((child, name)) = self.names.take() {
            self.root.begin_rename(child, name);
        }
    }
}

impl RuntimeState {
    /// Returns the name that a dependency has in the tree while it leaves.
    fn note_leaving(&self, one: &Arc<dyn AnyDependency>) -> String {
        let mut leaving = self.leaving.acquire();
        let known = leaving.iter().find(|(_, other)| Arc::ptr_eq(other, one));
        if let Some((child, _)) = known {
            return child.clone();
        }
        let child = leaving_name(&one.shared().name);
        leaving.push((child.clone(), Arc::clone(one)));
        child
    }

    fn forget_leaving(&self, one: &Arc<dyn AnyDependency>) {
        let mut leaving = self.leaving.acquire();
        leaving.retain(|(_, other)| !Arc::ptr_eq(other, one));
    }
}

/// The name in the tree of a dependency that leaves. It is read as the name of a key, so that what
/// it reports is counted for the dependency.
fn leaving_name(name: &str) -> String {
    let number = LEFT.fetch_add(1, Ordering::Relaxed) + 1;
    format!("{name}[leaving {number}]")
}
