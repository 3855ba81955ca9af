//! Supervised actor that checks health at an interval and on request.
//!
//! It keeps the last reports, which survive its crashes. It never operates a breaker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;

use super::HealthReport;
use crate::agents::vector::VectorSearch;
use crate::lock::LockExt as _;
use crate::{Child, Clock, Runtime, StartError};

/// Number of reports kept.
const KEPT: usize = 10;

/// Requests a check now.
#[derive(Debug, Message)]
#[rtype(result = "HealthReport")]
pub struct CheckNow;

/// Handle of a monitor. Cheap to clone, and usable on any thread.
#[derive(Clone)]
pub struct HealthMonitor {
    name: Arc<str>,
    reports: Arc<Mutex<VecDeque<HealthReport>>>,
    actor: Addr<Checker>,
}

impl HealthMonitor {
    /// Starts a supervised actor that checks a vector search: at once, and then one `interval`
    /// after each check. Without an interval it checks on request only.
    ///
    /// # Errors  The name is taken, or the runtime is shutting down.
    pub async fn start(
        runtime: &Runtime,
        name: &str,
        search: VectorSearch,
        interval: Option<Duration>,
    ) -> Result<Self, StartError> {
        let reports = Arc::new(Mutex::new(VecDeque::new()));
        let (kept, clock) = (Arc::clone(&reports), runtime.clock().clone());
        let child = Child::permanent(name, move || Checker {
            search: search.clone(),
            clock: clock.clone(),
            interval,
            reports: Arc::clone(&kept),
        });
        let actor = runtime.supervise(child).await?.addr();
        Ok(Self {
            name: Arc::from(name),
            reports,
            actor,
        })
    }

    /// Returns the name of the monitor.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the last reports, the newest first.
    #[must_use]
    pub fn reports(&self) -> Vec<HealthReport> {
        let reports = self.reports.acquire();
        reports.iter().cloned().collect()
    }

    /// Checks now. Returns `None` if the monitor has stopped.
    pub async fn check(&self) -> Option<HealthReport> {
        self.actor.send(CheckNow).await.ok()
    }
}

impl fmt::Debug for HealthMonitor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HealthMonitor")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Checker {
    search: VectorSearch,
    clock: Clock,
    interval: Option<Duration>,
    reports: Arc<Mutex<VecDeque<HealthReport>>>,
}

impl Checker {
    fn check(&self) -> ResponseActFuture<Self, HealthReport> {
        let (search, clock) = (self.search.clone(), self.clock.clone());
        let checked = async move { search.check_health(&clock).await }.into_actor(self);
        Box::pin(checked.map(|report, actor, _| actor.keep(report)))
    }

    fn keep(&self, report: HealthReport) -> HealthReport {
        let mut reports = self.reports.acquire();
        let report = report.after(reports.front());
        reports.push_front(report.clone());
        reports.truncate(KEPT);
        report
    }

    fn round(&mut self, context: &mut Context<Self>) {
        let Some(interval) = self.interval else {
            return;
        };
        let checked = self.check().map(move |_, _, context: &mut Context<Self>| {
            context.run_later(interval, Self::round);
        });
        context.spawn(checked);
    }
}

impl Actor for Checker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.round(context);
    }
}

impl Handler<CheckNow> for Checker {
    type Result = ResponseActFuture<Self, HealthReport>;

    fn handle(&mut self, _: CheckNow, _: &mut Context<Self>) -> Self::Result {
        self.check()
    }
}
