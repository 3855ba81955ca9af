//! The call sites: places in a program where an attribute names a dependency.
//!
//! They register themselves before `main`, so that a name that is not configured is an error when
//! the runtime is installed, not when its function is first called. A call site looks up its
//! dependency's handle and caches it, for one runtime at a time. It never starts a dependency.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use crate::error::{CallError, NotExecutedReason};
use crate::runtime::Runtime;
use crate::runtime::closures::AnyClient;
use crate::runtime::scope;
use crate::state::{Route, Shared};

/// A place where an attribute names a dependency.
#[derive(Debug)]
pub struct CallSite {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
    /// True if the attribute names its runtime.
    pub(crate) own_runtime: bool,
    kept: ArcSwapOption<CachedHandle>,
}

/// The handle that a call site found last. It keeps nothing alive.
#[derive(Debug)]
struct CachedHandle {
    runtime: u64,
    shared: Weak<Shared>,
}

/// A call site, as it is collected.
#[derive(Debug)]
pub struct CollectedSite(pub &'static CallSite);

inventory::collect!(CollectedSite);

impl CallSite {
    /// Creates a call site; used by the attribute, as a `static`.
    #[must_use]
    pub const fn new(name: &'static str, file: &'static str, line: u32, own_runtime: bool) -> Self {
        Self {
            name,
            file,
            line,
            own_runtime,
            kept: ArcSwapOption::const_empty(),
        }
    }

    /// Returns the handle in the current scope's runtime, else in the installed one.
    ///
    /// # Errors  There is no runtime, or it has no dependency of this name.
    #[inline]
    pub fn client<E>(&self) -> Result<AnyClient, CallError<E>> {
        match self.kept(scope::present_id()) {
            Some(shared) => Ok(AnyClient { shared }),
            None => match scope::present() {
                Some(runtime) => self.look_up(&runtime),
                None => Err(self.absent(NotExecutedReason::NoRuntime)),
            },
        }
    }

    /// Returns the handle in this runtime.
    ///
    /// # Errors  The runtime has no dependency of this name.
    #[inline]
    pub fn client_in<E>(&self, runtime: &Runtime) -> Result<AnyClient, CallError<E>> {
        match self.kept(runtime.id()) {
            Some(shared) => Ok(AnyClient { shared }),
            None => self.look_up(runtime),
        }
    }

    #[inline]
    fn kept(&self, runtime: u64) -> Option<Arc<Shared>> {
        let kept = self.kept.load();
        let shared = kept.as_ref().filter(|kept| kept.runtime == runtime)?;
        let shared = shared.shared.upgrade()?;
        // A removed dependency may have been started again under its name.
        let is_leaving = matches!(shared.route(), Route::Stopped | Route::Draining);
        (!is_leaving).then_some(shared)
    }

    #[cold]
    fn look_up<E>(&self, runtime: &Runtime) -> Result<AnyClient, CallError<E>> {
        let client = runtime.any_client(self.name);
        let client = client.ok_or_else(|| self.absent(NotExecutedReason::NotStarted))?;
        self.kept.store(Some(Arc::new(CachedHandle {
            runtime: runtime.id(),
            shared: Arc::downgrade(&client.shared),
        })));
        Ok(client)
    }

    #[cold]
    fn absent<E>(&self, reason: NotExecutedReason) -> CallError<E> {
        CallError::NotExecuted {
            dependency: Arc::from(self.name),
            reason,
            cause: None,
            retry_after: None,
        }
    }
}
