//! The call sites: places in a program where an attribute names a dependency.
//!
//! They register themselves before `main`, so that a name that is not configured is an error when
//! the runtime is installed, not when its function is first called. A call site looks up its
//! dependency's handle and caches it, for one runtime at a time. It never starts a dependency.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use crate::ambient;
use crate::closures::AnyClient;
use crate::dependency::{Route, Shared};
use crate::error::{CallError, NotExecutedReason, StartError};
use crate::runtime::Runtime;

/// A place where an attribute names a dependency.
#[derive(Debug)]
pub struct CallSite {
    name: &'static str,
    file: &'static str,
    line: u32,
    /// True if the attribute names its runtime.
    own_runtime: bool,
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
pub struct Collected(pub &'static CallSite);

inventory::collect!(Collected);

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
        match self.kept(ambient::present_id()) {
            Some(shared) => Ok(AnyClient { shared }),
            None => match ambient::present() {
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
        (shared.route() != Route::Stopped).then_some(shared)
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
            retry_after: None,
        }
    }
}

/// A name that an attribute gives and that is not configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// The place of the attribute: the file, as passed to the compiler, and the line.
    pub place: String,
    /// The most similar known name, if one is similar enough.
    pub near: Option<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{}\" at {}", self.name, self.place)?;
        match &self.near {
            Some(near) => write!(out, ", did you mean \"{near}\"?"),
            None => Ok(()),
        }
    }
}

/// Lists all of them in one line.
pub(crate) fn list(names: &[UnknownName]) -> String {
    let each: Vec<String> = names.iter().map(UnknownName::to_string).collect();
    let are = if names.len() == 1 {
        "a dependency that an attribute names is"
    } else {
        "dependencies that attributes name are"
    };
    format!("{are} neither configured nor started: {}", each.join("; "))
}

/// Returns the most similar word, if one is similar enough.
fn nearest<'w>(given: &str, words: impl Iterator<Item = &'w String>) -> Option<String> {
    let limit = 1 + given.len() / 4;
    let near = words.map(|word| (strsim::levenshtein(given, word), word));
    let (distance, word) = near.min()?;
    (distance <= limit).then(|| word.clone())
}

impl Runtime {
    /// Makes this runtime the implicit one of the whole process: functions under the attribute use
    /// it from every thread, unless they are in the scope of another runtime ([`Runtime::enter`])
    /// or name one. Starts the dependencies of those functions, as [`Runtime::start_protected`]
    /// does.
    ///
    /// Start the dependencies that have workers first. The process does not keep the runtime alive.
    /// Once it is gone, another one may be installed.
    ///
    /// # Errors  Another runtime is installed; or as [`Runtime::start_protected`].
    pub async fn install(&self) -> Result<(), StartError> {
        if ambient::is_taken() {
            return Err(StartError::AlreadyInstalled);
        }
        self.start_sites(|site| !site.own_runtime).await?;
        ambient::install(self)
    }

    /// Starts, without workers, the dependencies that attributes of this program name, that are
    /// configured, and that are not running yet, as
    /// [`NewDependency::start`](crate::NewDependency::start) does. For programs that pass their
    /// runtime around; others use [`Runtime::install`].
    ///
    /// # Errors  A name is neither configured nor running: all such names are listed with their
    /// places, and nothing is started. Or as `NewDependency::start`.
    pub async fn start_protected(&self) -> Result<(), StartError> {
        self.start_sites(|_| true).await
    }

    async fn start_sites(&self, counts: impl Fn(&CallSite) -> bool) -> Result<(), StartError> {
        let sites = inventory::iter::<Collected>.into_iter().map(|one| one.0);
        let running = self.running();
        let configured = self.configured();
        let is_known = |name: &str| running.contains(name) || configured.contains(name);
        let (known, unknown): (Vec<&CallSite>, Vec<&CallSite>) = sites
            .filter(|site| counts(site))
            .partition(|site| is_known(site.name));
        if !unknown.is_empty() {
            let near = |name| nearest(name, running.union(&configured));
            let mut names: Vec<UnknownName> = unknown
                .into_iter()
                .map(|site| UnknownName {
                    name: site.name.to_owned(),
                    place: format!("{}:{}", site.file, site.line),
                    near: near(site.name),
                })
                .collect();
            names.sort();
            return Err(StartError::UnknownNames { names });
        }
        let mut idle: Vec<&str> = known.into_iter().map(|site| site.name).collect();
        idle.sort_unstable();
        idle.dedup();
        idle.retain(|name| !running.contains(*name));
        for name in idle {
            match self.dependency(name).start().await {
                // Another task has started it meanwhile.
                Ok(_) | Err(StartError::AlreadyRegistered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
