//! The dependencies that attributes name: started together with the runtime.

use super::{Runtime, scope};
use crate::attribute::call_site::{CallSite, CollectedSite};
use crate::error::{StartError, UnknownName};
use crate::nearest_word::nearest_word;

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
        if scope::is_taken() {
            return Err(StartError::AlreadyInstalled);
        }
        self.start_sites(|site| !site.own_runtime).await?;
        scope::install(self)
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
        let sites = inventory::iter::<CollectedSite>
            .into_iter()
            .map(|one| one.0);
        let running = self.running();
        let configured = self.configured();
        let is_known = |name: &str| running.contains(name) || configured.contains(name);
        let (known, unknown): (Vec<&CallSite>, Vec<&CallSite>) = sites
            .filter(|site| counts(site))
            .partition(|site| is_known(site.name));
        if !unknown.is_empty() {
            let near = |name| {
                let known = running.union(&configured).map(String::as_str);
                nearest_word(name, known).map(str::to_owned)
            };
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
