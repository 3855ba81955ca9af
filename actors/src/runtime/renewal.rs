//! New starts of a dependency's workers by an operator's order.

use std::fmt;
use std::time::Duration;

use breakerbox_policy::RoundedDuration;
use breakerbox_policy::supervision::{CommandError, StopCause};
use futures_util::future::try_join_all;

use super::Runtime;
use super::registry::AnyDependency;
use crate::deadline::bounded;

/// Result of an order to start workers anew.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum WorkerRestart {
    /// All of them run.
    Running,
    /// Some of them are still being started, after this time.
    Starting(Duration),
    /// One of them did not start.
    NotStarted(StopCause),
}

impl fmt::Display for WorkerRestart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => out.write_str("its workers run"),
            Self::Starting(after) => {
                let after = RoundedDuration(*after);
                write!(out, "its workers are still being started after {after}")
            }
            Self::NotStarted(cause) => write!(out, "a worker did not start: {cause}"),
        }
    }
}

/// Reason why workers cannot be started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestartRefusal {
    /// There is no dependency of this name.
    #[error("there is no dependency of this name")]
    UnknownDependency,
    /// It has no workers: only its fallbacks answer, or the program calls it with closures.
    #[error("it has no workers that could be started anew")]
    NoWorkers,
    /// It is being stopped.
    #[error("it is being stopped")]
    Stopping,
}

impl Runtime {
    /// Starts all workers of a dependency anew, with a fresh restart budget, and waits for at most
    /// `patience` until they run. A worker that runs finishes its calls within its drain time; one
    /// that is parked, or waits for its backoff, is started now. Callers wait meanwhile, as during
    /// every restart.
    ///
    /// # Errors  [`RestartRefusal`]; nothing is then started.
    /// # Cancel safety   Dropped, the workers are started all the same.
    /// # Source  Rule MCP-1 in docs/rules.md.
    pub async fn restart_workers(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<WorkerRestart, RestartRefusal> {
        let one = self.registry().get(name).cloned();
        let one = one.ok_or(RestartRefusal::UnknownDependency)?;
        if one.is_leaving() {
            return Err(RestartRefusal::Stopping);
        }
        let names = worker_names(&*one);
        if names.is_empty() {
            return Err(RestartRefusal::NoWorkers);
        }
        let group = self.group(name).ok_or(RestartRefusal::Stopping)?;
        let renewing = try_join_all(names.iter().map(|worker| group.renew(worker)));
        let clock = self.clock();
        let until = clock.now().after(patience);
        match bounded(clock, Some(until), renewing).await {
            None => Ok(WorkerRestart::Starting(patience)),
            Some(Ok(_)) => Ok(WorkerRestart::Running),
            Some(Err(CommandError::StartFailed(cause))) => Ok(WorkerRestart::NotStarted(cause)),
            Some(Err(_)) => Err(RestartRefusal::Stopping),
        }
    }

    /// Begins to start the workers of a dependency that do not run by themselves.
    pub(super) fn begin_restart(&self, name: &str, one: &dyn AnyDependency) {
        if let Some(group) = self.group(name) {
            for number in one.workers_given_up() {
                group.begin_renewal(worker_name(number));
            }
        }
    }
}

fn worker_names(one: &dyn AnyDependency) -> Vec<String> {
    let numbers = 1..=one.worker_count();
    numbers.map(worker_name).collect()
}

fn worker_name(number: usize) -> String {
    format!("worker-{number}")
}
