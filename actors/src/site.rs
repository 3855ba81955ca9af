//! The places in a program where an attribute names a dependency.
//!
//! They register themselves before `main`, so that a name that nobody has configured is an error
//! when the runtime is installed, not when its function is first called. A site finds its
//! dependency's handle and keeps it, for one runtime at a time. It never starts one.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use crate::ambient;
use crate::closures::AnyClient;
use crate::dependency::{Route, Shared};
use crate::error::{Absence, CallError, StartError};
use crate::runtime::Runtime;

/// Where an attribute names a dependency.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    file: &'static str,
    line: u32,
    /// Whether it names its runtime itself.
    own_runtime: bool,
    kept: ArcSwapOption<Kept>,
}

/// What a site has found last. It keeps nothing alive.
#[derive(Debug)]
struct Kept {
    runtime: u64,
    shared: Weak<Shared>,
}

/// A site, as it is collected.
#[derive(Debug)]
pub struct Collected(pub &'static Site);

inventory::collect!(Collected);

impl Site {
    /// A site; made by the attribute, as a `static`.
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

    /// The handle in the runtime whose scope this is, or that is installed.
    ///
    /// # Errors  There is none, or it has no dependency of this name.
    #[inline]
    pub fn client<E>(&self) -> Result<AnyClient, CallError<E>> {
        match self.kept(ambient::present_id()) {
            Some(shared) => Ok(AnyClient { shared }),
            None => match ambient::present() {
                Some(runtime) => self.look_up(&runtime),
                None => Err(self.absent(Absence::NoRuntime)),
            },
        }
    }

    /// The handle in this runtime.
    ///
    /// # Errors  It has no dependency of this name.
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
        // One that was taken out may have come back by its name.
        (shared.route() != Route::Stopped).then_some(shared)
    }

    #[cold]
    fn look_up<E>(&self, runtime: &Runtime) -> Result<AnyClient, CallError<E>> {
        let client = runtime.any_client(self.name);
        let client = client.ok_or_else(|| self.absent(Absence::NotStarted))?;
        self.kept.store(Some(Arc::new(Kept {
            runtime: runtime.id(),
            shared: Arc::downgrade(&client.shared),
        })));
        Ok(client)
    }

    #[cold]
    fn absent<E>(&self, reason: Absence) -> CallError<E> {
        CallError::NotExecuted {
            dependency: Arc::from(self.name),
            reason,
            retry_after: None,
        }
    }
}

/// A name that an attribute gives and that nobody has configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// Where it stands: the file, as the compiler was given it, and the line.
    pub place: String,
    /// The known name that is most like it, if one is.
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

/// All of them in one line.
pub(crate) fn list(names: &[UnknownName]) -> String {
    let each: Vec<String> = names.iter().map(UnknownName::to_string).collect();
    let are = if names.len() == 1 {
        "a dependency that an attribute names is"
    } else {
        "dependencies that attributes name are"
    };
    format!("{are} neither configured nor started: {}", each.join("; "))
}

/// The word that was probably meant.
fn nearest<'w>(given: &str, words: impl Iterator<Item = &'w String>) -> Option<String> {
    let limit = 1 + given.len() / 4;
    let near = words.map(|word| (strsim::levenshtein(given, word), word));
    let (distance, word) = near.min()?;
    (distance <= limit).then(|| word.clone())
}

impl Runtime {
    /// Makes this runtime the one of the whole process: functions under the attribute go to it
    /// from every thread, unless they are in the scope of another one ([`Runtime::enter`]) or name
    /// one. Starts what [`Runtime::start_protected`] starts, for those functions.
    ///
    /// Start the dependencies that have workers before. The process does not keep the runtime
    /// alive; when it has gone another one may be installed.
    ///
    /// # Errors  Another one is installed; or as [`Runtime::start_protected`].
    pub async fn install(&self) -> Result<(), StartError> {
        if ambient::is_taken() {
            return Err(StartError::AlreadyInstalled);
        }
        self.start_sites(|site| !site.own_runtime).await?;
        ambient::install(self)
    }

    /// Starts the dependencies that attributes of this program name, that are configured, and that
    /// nobody has started yet: without workers, as
    /// [`NewDependency::start`](crate::NewDependency::start) does. For programs that hand their
    /// runtime around; others have [`Runtime::install`].
    ///
    /// # Errors  A name is neither configured nor running; all of them are listed, with their
    /// places, and nothing is started. Or as `NewDependency::start`.
    pub async fn start_protected(&self) -> Result<(), StartError> {
        self.start_sites(|_| true).await
    }

    async fn start_sites(&self, counts: impl Fn(&Site) -> bool) -> Result<(), StartError> {
        let sites = inventory::iter::<Collected>.into_iter().map(|one| one.0);
        let running = self.running();
        let configured = self.configured();
        let is_known = |name: &str| running.contains(name) || configured.contains(name);
        let (known, unknown): (Vec<&Site>, Vec<&Site>) = sites
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
                // Somebody was faster.
                Ok(_) | Err(StartError::AlreadyRegistered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
