//! The implicit runtime of a call that names none: that of the innermost scope, else the installed
//! one.
//!
//! A scope belongs to a thread, or to one future while it is polled. Scopes nest, and tests that
//! run in parallel do not see each other's. Nothing here keeps a runtime alive.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::error::StartError;
use crate::runtime::{Runtime, WeakRuntime};
use crate::sync::LockExt;

/// The id that means "no runtime"; real ids start at 1.
pub(crate) const NOBODY: u64 = 0;

thread_local! {
    /// The id of the innermost scope's runtime: every call reads it.
    static HERE: Cell<u64> = const { Cell::new(NOBODY) };
    static SCOPES: RefCell<Vec<RuntimeScope>> = const { RefCell::new(Vec::new()) };
}

/// The id of the installed runtime: every call outside of a scope reads it.
static INSTALLED: AtomicU64 = AtomicU64::new(NOBODY);
static INSTALLED_RUNTIME: Mutex<Option<WeakRuntime>> = Mutex::new(None);

struct RuntimeScope {
    number: u64,
    id: u64,
    runtime: WeakRuntime,
}

/// Returns a new runtime id, unique in this process.
pub(crate) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(NOBODY + 1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the id of the runtime for a call made here.
#[inline]
pub(crate) fn present_id() -> u64 {
    match HERE.get() {
        NOBODY => INSTALLED.load(Ordering::Acquire),
        here => here,
    }
}

/// Returns the runtime for a call made here, if it still exists.
pub(crate) fn present() -> Option<Runtime> {
    let here = SCOPES.with_borrow(|scopes| scopes.last().map(|scope| scope.runtime.clone()));
    match here {
        Some(runtime) => runtime.upgrade(),
        None => installed().as_ref()?.upgrade(),
    }
}

fn installed() -> MutexGuard<'static, Option<WeakRuntime>> {
    INSTALLED_RUNTIME.acquire()
}

/// Returns true if an installed runtime still exists, and was not shut down.
pub(crate) fn is_taken() -> bool {
    let before = installed().as_ref().and_then(WeakRuntime::upgrade);
    before.is_some_and(|runtime| !runtime.is_shut_down())
}

/// Installs a runtime for the process, unless one is installed.
pub(crate) fn install(runtime: &Runtime) -> Result<(), StartError> {
    let mut installed = installed();
    let before = installed.as_ref().and_then(WeakRuntime::upgrade);
    // A runtime that was shut down makes room, even if a handle of it is left.
    if before.as_ref().is_some_and(|before| !before.is_shut_down()) {
        // Dropping the last handle of a runtime may take this lock again.
        drop(installed);
        return Err(StartError::AlreadyInstalled);
    }
    *installed = Some(runtime.downgrade());
    INSTALLED.store(runtime.id(), Ordering::Release);
    drop(installed);
    drop(before);
    Ok(())
}

impl Runtime {
    /// Makes this runtime the implicit one on this thread, until the guard is dropped: functions
    /// under [`protected`](https://docs.rs/breakerbox) use it, even if another one is installed.
    /// For tests, and for threads that belong to one of several runtimes.
    ///
    /// Other threads are not affected, and the scope does not keep the runtime alive. To cover one
    /// future on any thread, use [`Runtime::scope`]: a task that may change its thread cannot hold
    /// the guard across an `await`, because the guard is not `Send`.
    pub fn enter(&self) -> ScopeGuard {
        enter(self.id(), self.downgrade())
    }

    /// Runs a future in the scope of this runtime, on every thread that polls it. Tasks that it
    /// spawns do not inherit the scope.
    ///
    /// # Cancel safety   That of the future.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        let (id, runtime) = (self.id(), self.downgrade());
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _here = enter(id, runtime.clone());
            future.as_mut().poll(cx)
        })
        .await
    }
}

fn enter(id: u64, runtime: WeakRuntime) -> ScopeGuard {
    let number = SCOPES.with_borrow_mut(|scopes| {
        let number = scopes.last().map_or(0, |scope| scope.number + 1);
        scopes.push(RuntimeScope {
            number,
            id,
            runtime,
        });
        number
    });
    HERE.set(id);
    ScopeGuard {
        number,
        here: PhantomData,
    }
}

/// The scope of a runtime on this thread, until it is dropped: [`Runtime::enter`].
#[must_use = "the scope ends when it is dropped"]
pub struct ScopeGuard {
    number: u64,
    /// Makes the guard `!Send`, so that it stays on its thread.
    here: PhantomData<dyn UseRuntimeScopeInTasks>,
}

/// Named for the cure: the compiler says that this is not `Send`, where a guard is held across an
/// `await` of a task that may change its thread.
trait UseRuntimeScopeInTasks {}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        // The thread may be ending, and its scopes with it.
        let _ = SCOPES.try_with(|scopes| {
            let mut scopes = scopes.borrow_mut();
            scopes.retain(|scope| scope.number != self.number);
            HERE.set(scopes.last().map_or(NOBODY, |scope| scope.id));
        });
    }
}

impl fmt::Debug for ScopeGuard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ScopeGuard").finish_non_exhaustive()
    }
}
