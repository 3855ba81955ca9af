//! Active probes of an HTTP dependency (rule BRK-13): a task that asks it by itself, so that no caller
//! has to find out whether it is well.
//!
//! An open breaker is probed at the end of its open time, and a half-open one until it has decided.
//! A closed one is probed while no call comes: calls tell more than probes do. An override, a parked
//! dependency and a pause are left alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::{Class, RoundedDuration, State, Time};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::http::probe_request::{self, ProbeAnswer};
use super::http::target::UpstreamTarget;
use super::http::upstream::UpstreamClient;
use super::route::{HttpRoute, RouteKind, RouteTable};
use crate::config::ProbeConfig;
use crate::{
    ActiveProbeResult, ActiveProbeStatus, Clock, DependencyStatus, Event, EventKind, Runtime,
};

/// Longest wait for a free probe of a half-open breaker.
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// The task that probes one dependency; dropped, it ends.
pub(super) struct Prober {
    config: ProbeConfig,
    task: JoinHandle<()>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Starts the task, on the runtime that surrounds this.
    pub(super) fn start(
        runtime: &Runtime,
        routes: &Arc<ArcSwap<RouteTable>>,
        name: &str,
        config: ProbeConfig,
    ) -> Self {
        let clock = runtime.clock().clone();
        let task = ProbeTask {
            name: name.to_owned(),
            routes: Arc::downgrade(routes),
            events: Some(runtime.events()),
            rhythm: ProbeRhythm::new(clock.now()),
            tally: ActiveProbeStatus {
                request: format!("GET {}", without_query(&config.path)),
                every: config.every,
                counted: 0,
                failed: 0,
                last: None,
            },
            config: config.clone(),
            clock,
            connections: None,
            was_misplaced: false,
        };
        let task = tokio::spawn(task.run());
        Self { config, task }
    }

    /// Ends the task. A probe in flight is dropped, and its permit is given back.
    pub(super) async fn end(mut self) {
        self.task.abort();
        // It was told to end: there is no other result.
        let _ = (&mut self.task).await;
    }

    /// Returns true if it probes as this configuration says.
    pub(super) fn is_of(&self, config: &ProbeConfig) -> bool {
        self.config == *config && !self.task.is_finished()
    }
}

struct ProbeTask {
    name: String,
    /// The table outlives the task; the task must not keep it alive.
    routes: Weak<ArcSwap<RouteTable>>,
    events: Option<Receiver<Event>>,
    rhythm: ProbeRhythm,
    tally: ActiveProbeStatus,
    config: ProbeConfig,
    clock: Clock,
    /// Connections of its own, so that a probe does not wait for those of calls.
    connections: Option<(Arc<UpstreamTarget>, UpstreamClient)>,
    /// True if the last answer said that the probe asks wrongly.
    was_misplaced: bool,
}

impl ProbeTask {
    async fn run(mut self) {
        while let Some(route) = self.route() {
            let every = self.config.every;
            let seen = ProbeView::of(&route);
            match self.rhythm.step(self.clock.now(), &seen, every) {
                ProbeStep::Wait(wait) => {
                    route.client.show_active_probes(Some(self.tally.clone()));
                    // A route that leaves waits for those who use it.
                    drop(route);
                    self.wait(wait).await;
                }
                ProbeStep::Probe => self.probe(&route, &seen).await,
            }
        }
    }

    fn route(&self) -> Option<Arc<HttpRoute>> {
        match self.routes.upgrade()?.load().get(&*self.name)? {
            RouteKind::Http(route) => Some(Arc::clone(route)),
            _ => None,
        }
    }

    /// Waits for that time, or until the breaker has changed.
    async fn wait(&mut self, wait: Duration) {
        let until = self.clock.now().after(wait);
        let sleep = self.clock.sleep_until(until);
        let Some(events) = &mut self.events else {
            return sleep.await;
        };
        let is_over = tokio::select! {
            () = sleep => false,
            is_over = changed(events, &self.name) => is_over,
        };
        if is_over {
            self.events = None;
        }
    }

    async fn probe(&mut self, route: &HttpRoute, seen: &ProbeView) {
        let Some(probe) = route.client.begin_active_probe() else {
            // The breaker has changed just now.
            return self.rhythm.not_admitted(self.clock.now());
        };
        let lease = route.client.settings().breaker.half_open.probe_lease;
        let config = self.config.clone();
        let limit = config.timeout.min(lease);
        let mut answer = probe_request::send(self.upstream(route), &config, limit).await;
        let now = self.clock.now();
        if let Some(asked) = answer.retry_after {
            // LIM-1: a hint is believed up to `throttle.max`, also the one of a probe.
            let believed = route.client.settings().throttle.believed(asked);
            let wait = believed.max(config.every);
            answer.retry_after = Some(believed);
            answer.text = asked_to_wait(&answer.text, asked, wait);
        }
        let counts = self
            .rhythm
            .answered(now, &answer, (seen, self.config.every));
        let result = match answer.verdict.class {
            Class::Success => ActiveProbeResult::Succeeded,
            Class::Failure => ActiveProbeResult::Failed,
            _ => ActiveProbeResult::NotCounted,
        };
        self.tell(&answer);
        self.tally.last = Some((now, result, answer.text));
        if result != ActiveProbeResult::NotCounted {
            self.tally.counted += 1;
            self.tally.failed += u64::from(result == ActiveProbeResult::Failed);
        }
        route.client.show_active_probes(Some(self.tally.clone()));
        if counts {
            probe.end(&answer.verdict);
        }
    }

    fn upstream(&mut self, route: &HttpRoute) -> &UpstreamClient {
        let target = route.shared_target();
        let former = self.connections.take();
        let kept = former.filter(|(of, _)| Arc::ptr_eq(of, &target));
        let (_, upstream) = self.connections.insert(kept.unwrap_or_else(|| {
            let upstream = target.connect();
            (target, upstream)
        }));
        upstream
    }

    /// Tells once that the probe asks wrongly.
    fn tell(&mut self, answer: &ProbeAnswer) {
        if answer.is_misplaced && !self.was_misplaced {
            tracing::warn!(
                dependency = self.name,
                request = self.tally.request,
                "{}: the probe counts for nothing; see probe.path and probe.status",
                answer.text
            );
        }
        self.was_misplaced = answer.is_misplaced;
    }
}

/// Resolves when the breaker of a dependency may have changed. Returns true if no event will come
/// any more.
async fn changed(events: &mut Receiver<Event>, name: &str) -> bool {
    loop {
        match events.recv().await {
            Ok(event) => {
                let is_of_breaker = matches!(
                    event.kind,
                    EventKind::Breaker(_) | EventKind::Operated { .. }
                );
                if is_of_breaker && &*event.subject == name {
                    return false;
                }
            }
            Err(RecvError::Lagged(_)) => return false,
            Err(RecvError::Closed) => return true,
        }
    }
}

/// The state of a dependency, as far as its probes depend on it.
#[derive(Debug, Clone, Copy)]
struct ProbeView {
    state: State,
    /// True if the dependency is not to be asked: by an override, or because it takes no calls.
    is_left_alone: bool,
    /// True if a half-open breaker has a probe of a caller in flight.
    is_probed: bool,
    /// Rest of an open time or a pause.
    wait: Option<Duration>,
    /// Number of calls so far.
    submitted: u64,
    /// Failures since the last success.
    failures: u64,
}

impl ProbeView {
    fn of(route: &HttpRoute) -> Self {
        let status: DependencyStatus = route.client.status();
        let only = route.client.settings().fallback_only;
        let pause = status.paused.map(|(_, left)| left);
        let most = route.client.settings().breaker.half_open.max_calls.get();
        let probes = status.half_open.map_or(0, |half_open| half_open.in_flight);
        Self {
            state: status.state,
            is_left_alone: status.overridden.is_some() || status.parked || only,
            is_probed: probes >= u64::from(most),
            wait: pause.or(status.retry_after),
            submitted: status.totals.submitted,
            failures: status.window.consecutive_failures,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeStep {
    Wait(Duration),
    Probe,
}

/// The times of the probes. It knows no clock and no connection.
#[derive(Debug)]
struct ProbeRhythm {
    /// Time of the next probe of a closed breaker, and of the next one after an answer that counted
    /// for nothing.
    due: Time,
    /// Time from which a half-open breaker is probed.
    due_half_open: Time,
    /// Number of calls when the present interval began.
    submitted: Option<u64>,
    /// Failures of probes in a row, without a call between them.
    own_failures: u64,
}

impl ProbeRhythm {
    fn new(now: Time) -> Self {
        Self {
            due: now,
            due_half_open: now,
            submitted: None,
            own_failures: 0,
        }
    }

    fn step(&mut self, now: Time, seen: &ProbeView, every: Duration) -> ProbeStep {
        if self.submitted != Some(seen.submitted) {
            // A call has come since, and tells more than a probe would.
            self.submitted = Some(seen.submitted);
            self.own_failures = 0;
            self.due = now.after(every);
        }
        if seen.is_left_alone {
            return ProbeStep::Wait(every);
        }
        if let Some(wait) = seen.wait.filter(|wait| !wait.is_zero()) {
            return ProbeStep::Wait(wait);
        }
        // BRK-13: a half-open breaker needs no call while it is probed.
        let due = match seen.state {
            State::Closed => self.due,
            State::HalfOpen if seen.is_probed => now.after(every.min(SLOT_WAIT)),
            State::HalfOpen => self.due_half_open,
            // Its time is over, and it has not become half-open yet.
            State::Open => now.after(every.min(SLOT_WAIT)),
        };
        match due.since(now) {
            left if left.is_zero() => ProbeStep::Probe,
            left => ProbeStep::Wait(left),
        }
    }

    fn not_admitted(&mut self, now: Time) {
        self.due = self.due.max(now.after(SLOT_WAIT));
        self.due_half_open = now.after(SLOT_WAIT);
    }

    /// Notes an answer. Returns true if the breaker is to count it.
    fn answered(
        &mut self,
        now: Time,
        answer: &ProbeAnswer,
        (seen, every): (&ProbeView, Duration),
    ) -> bool {
        self.due = now.after(every);
        match answer.verdict.class {
            Class::Success => {
                self.due_half_open = now;
                // While closed it takes back failures of probes, never those of calls: a path that
                // only says that a server lives would cover them.
                let is_own = seen.failures <= self.own_failures;
                self.own_failures = 0;
                seen.state != State::Closed || is_own
            }
            Class::Failure => {
                self.due_half_open = now;
                self.own_failures += 1;
                true
            }
            _ => {
                let wait = answer.retry_after.unwrap_or_default().max(every);
                self.due = now.after(wait);
                self.due_half_open = self.due;
                false
            }
        }
    }
}

/// Returns the words on a probe that was asked to come later.
fn asked_to_wait(answer: &str, asked: Duration, wait: Duration) -> String {
    let (asked, wait) = (RoundedDuration(asked), RoundedDuration(wait));
    format!("{answer} and asked for {asked} without requests; the next probe follows after {wait}")
}

/// Returns a path for readers of the status: a query may hold a secret.
fn without_query(path: &str) -> String {
    match path.split_once('?') {
        // SEC-1: secrets are never shown.
        Some((path, _)) => format!("{path}?***"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
