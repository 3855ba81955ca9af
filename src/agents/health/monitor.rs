//! The monitor: a supervised actor that checks now and then, and whenever it is asked to.
//!
//! It remembers the last reports, which outlive its crashes. It operates nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;

use super::Report;
use crate::agents::vector::VectorSearch;
use crate::{Child, Clock, Runtime, StartError};

/// Reports that are kept.
const KEPT: usize = 10;

/// Asks for a check now.
#[derive(Debug, Message)]
#[rtype(result = "Report")]
pub struct CheckNow;

/// The handle of a monitor. Cheap to clone, good on any thread.
#[derive(Clone)]
pub struct HealthMonitor {
    name: Arc<str>,
    reports: Arc<Mutex<VecDeque<Report>>>,
    actor: Addr<Checker>,
}

impl HealthMonitor {
    /// Has a supervised actor of this name check a vector search, at once and then each time this
    /// long after the last one; without an interval only when it is asked.
    ///
    /// # Errors  The name is taken, or the runtime is going down.
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

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last reports, the newest first.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().cloned().collect()
    }

    /// Checks now; `None` when the monitor is gone.
    pub async fn check(&self) -> Option<Report> {
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
    reports: Arc<Mutex<VecDeque<Report>>>,
}

impl Checker {
    fn check(&self) -> ResponseActFuture<Self, Report> {
        let (search, clock) = (self.search.clone(), self.clock.clone());
        let checked = async move { search.check_health(&clock).await }.into_actor(self);
        Box::pin(checked.map(|report, actor, _| actor.keep(report)))
    }

    fn keep(&self, report: Report) -> Report {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
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
    type Result = ResponseActFuture<Self, Report>;

    fn handle(&mut self, _: CheckNow, _: &mut Context<Self>) -> Self::Result {
        self.check()
    }
}
