//! Metrics in the Prometheus text format.
//!
//! No state is kept here that a call would have to update: each scrape reads the runtime's own
//! counters, on the admin side's thread. Labels are names of dependencies and of their fallbacks,
//! and values of closed lists: never keys, requests or errors.

#[cfg(feature = "gateway")]
mod models;

mod consumers;
#[cfg(feature = "fleet")]
mod fleet;

mod series;

mod tools;

use std::collections::BTreeMap;
#[cfg(feature = "otel")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex};

use breakerbox_policy::{OverrideMode, PauseReason, State as Breaker};
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, TextEncoder};

use crate::lock::LockExt as _;
use crate::sidecar::names::{dependency_of, event_kind, pause_name, state_name};
use crate::{DependencyStatus, Event, Health, RefusedBy, Runtime};
use series::SeriesFamily;
pub(crate) use tools::ToolSeries;

#[cfg(feature = "otel")]
use super::export_counts::ExportCounts;

/// Maximum number of counters by dependency and kind of event; further events are counted without a
/// dependency.
const MAX_SUBJECTS: usize = 1024;

/// Counters of events, beside the runtime's own.
#[derive(Clone, Default)]
pub(crate) struct MetricsReader {
    events: Arc<Mutex<EventLedger>>,
    #[cfg(feature = "otel")]
    exports: Arc<OnceLock<Arc<ExportCounts>>>,
}

/// Number of events by dependency and kind.
type EventCounts = BTreeMap<(String, &'static str), u64>;

/// The events counted so far.
#[derive(Default)]
struct EventLedger {
    counts: EventCounts,
    /// Id of the last event that was counted.
    seen: u64,
}

impl EventLedger {
    /// Counts an event, unless it was counted before.
    fn count(&mut self, event: &Event) {
        if event.id <= self.seen {
            return;
        }
        self.seen = event.id;
        let kind = event_kind(&event.kind);
        let mut key = (dependency_of(&event.subject).to_owned(), kind);
        if self.counts.len() >= MAX_SUBJECTS && !self.counts.contains_key(&key) {
            key.0 = String::new();
        }
        *self.counts.entry(key).or_default() += 1;
    }

    /// Counts the events that the listener has not heard yet, up to the first one that the history
    /// has let go: the listener still hears that one.
    fn catch_up(&mut self, runtime: &Runtime) {
        for event in runtime.events_since(self.seen) {
            if event.id != self.seen + 1 {
                return;
            }
            self.count(&event);
        }
    }
}

impl MetricsReader {
    /// Counts this runtime's events from this call on.
    pub(crate) fn watch(runtime: &Runtime) -> Self {
        let metrics = Self::default();
        let past = runtime.events_since(0);
        metrics.events.acquire().seen = past.last().map_or(0, |event| event.id);
        let weak = Arc::downgrade(&metrics.events);
        runtime.on_event(move |event| {
            if let Some(events) = weak.upgrade() {
                events.acquire().count(event);
            }
        });
        metrics
    }

    /// Adds the counters of exported traces and metrics. Only the first call counts.
    #[cfg(feature = "otel")]
    pub(crate) fn count_exports(&self, counts: &Arc<ExportCounts>) {
        // The first exporter is the one counted.
        let _ = self.exports.set(Arc::clone(counts));
    }
}

/// Figures of the admin side, beside those of its runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminFigures {
    pub(crate) is_ready: bool,
    /// Alerts that are active or acknowledged.
    pub(crate) pending_alerts: usize,
    /// Events that readers of the stream were too slow for.
    pub(crate) missed_events: u64,
    pub(crate) stream_readers: usize,
    /// `None` without a gateway.
    pub(crate) buffered: Option<BufferedFigures>,
}

/// Bytes that the gateway keeps and may keep, and the number of refusals above that.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BufferedFigures {
    pub(crate) used: u64,
    pub(crate) limit: u64,
    pub(crate) refused: u64,
}

/// Encodes families as text. Returns its media type, too.
pub(crate) fn encode(families: &[MetricFamily]) -> (String, Vec<u8>) {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    // Encoding fails only for families without series, and those are left out.
    if let Err(error) = encoder.encode(families, &mut text) {
        tracing::error!(%error, "metrics cannot be written");
    }
    (encoder.format_type().to_owned(), text)
}

/// Returns the families of the fleet.
#[cfg(feature = "fleet")]
pub(crate) fn of_fleet(figures: &crate::fleet::FleetFigures) -> Vec<MetricFamily> {
    let all = fleet::families(figures).into_iter();
    all.filter_map(SeriesFamily::build).collect()
}

impl MetricsReader {
    /// Returns all families, read once.
    pub(crate) fn families(
        &self,
        runtime: &Runtime,
        figures: AdminFigures,
        tools: &ToolSeries,
        #[cfg(feature = "gateway")] models: Option<&crate::gateway::Servers>,
    ) -> Vec<MetricFamily> {
        let statuses = runtime.statuses();
        let mut all = Vec::new();
        all.extend(of_breakers(&statuses));
        all.extend(of_calls(&statuses));
        all.extend(of_attempts(&statuses));
        all.extend(of_limits(&statuses));
        all.extend(of_workers(runtime, &statuses));
        all.push(latency(runtime, &statuses));
        all.push(self.of_events(runtime, &statuses));
        #[cfg(feature = "mcp")]
        all.extend(tools.families());
        #[cfg(not(feature = "mcp"))]
        let _ = tools;
        #[cfg(feature = "gateway")]
        if let Some(servers) = models {
            all.extend(models::families(
                &servers.models(),
                &servers.reserved_tokens(),
            ));
        }
        all.extend(consumers::families(&runtime.consumers()));
        all.extend(of_admin(figures));
        all.extend(of_memory(figures.buffered.unwrap_or_default()));
        all.extend(of_process(runtime, figures));
        #[cfg(feature = "otel")]
        all.extend(self.of_exports());
        let mut families: Vec<MetricFamily> =
            all.into_iter().filter_map(SeriesFamily::build).collect();
        families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
        families
    }

    fn of_events(&self, runtime: &Runtime, statuses: &[DependencyStatus]) -> SeriesFamily {
        let mut events = SeriesFamily::counter(
            "breakerbox_events_total",
            "Events by kind; those of no dependency have none.",
        );
        let mut known: EventCounts = BTreeMap::new();
        {
            let mut counted = self.events.acquire();
            counted.catch_up(runtime);
            for ((subject, kind), count) in &counted.counts {
                let is_one = statuses.iter().any(|one| one.name == *subject);
                let name = if is_one {
                    subject.clone()
                } else {
                    String::new()
                };
                *known.entry((name, kind)).or_default() += count;
            }
        }
        for ((name, kind), count) in &known {
            events.add(&[("dependency", name), ("kind", kind)], *count);
        }
        events
    }

    /// Counters of the exports to the collector, if there are exports.
    #[cfg(feature = "otel")]
    fn of_exports(&self) -> [SeriesFamily; 2] {
        let mut spans = SeriesFamily::counter(
            "breakerbox_otel_spans_total",
            "Spans that ended, by result.",
        );
        let mut reports = SeriesFamily::counter(
            "breakerbox_otel_reports_total",
            "Metric reports, by result.",
        );
        if let Some(counts) = self.exports.get() {
            for (result, count) in counts.spans() {
                spans.add(&[("result", result)], count);
            }
            for (result, count) in counts.reports() {
                reports.add(&[("result", result)], count);
            }
        }
        [spans, reports]
    }
}

fn of_breakers(statuses: &[DependencyStatus]) -> [SeriesFamily; 5] {
    let mut state = SeriesFamily::gauge(
        "breakerbox_breaker_state",
        "1 for the breaker's own state, 0 for the others.",
    );
    let mut over = SeriesFamily::gauge(
        "breakerbox_breaker_override",
        "1 for the override that is set, 0 for the others.",
    );
    let mut health = SeriesFamily::gauge(
        "breakerbox_dependency_health",
        "1 for the health of the dependency, 0 for the others.",
    );
    let mut outage = SeriesFamily::gauge(
        "breakerbox_outage",
        "1 while an outage of the dependency stands.",
    );
    let mut trips = SeriesFamily::counter(
        "breakerbox_breaker_trips_total",
        "Times that the breaker opened.",
    );
    for one in statuses {
        let name = ("dependency", &*one.name);
        // SUP-4: without a worker it is not told as closed.
        let shown = if one.parked { Breaker::Open } else { one.state };
        for known in [Breaker::Closed, Breaker::Open, Breaker::HalfOpen] {
            let labels = [name, ("state", state_name(known))];
            state.add(&labels, truth(shown == known));
        }
        let modes = [
            (OverrideMode::ForcedOpen, "forced_open"),
            (OverrideMode::Disabled, "disabled"),
            (OverrideMode::Shadow, "shadow"),
        ];
        for (mode, word) in modes {
            let set = one.overridden.as_ref().is_some_and(|set| set.mode == mode);
            over.add(&[name, ("mode", word)], truth(set));
        }
        let is = [
            ("ok", one.health == Health::Ok),
            ("degraded", matches!(one.health, Health::Degraded { .. })),
            ("down", matches!(one.health, Health::Down { .. })),
        ];
        for (word, is) in is {
            health.add(&[name, ("health", word)], truth(is));
        }
        outage.add(&[name], truth(one.outage.is_some()));
        trips.add(&[name], one.totals.trips);
    }
    [state, over, health, outage, trips]
}

fn of_calls(statuses: &[DependencyStatus]) -> [SeriesFamily; 4] {
    let mut submitted =
        SeriesFamily::counter("breakerbox_calls_submitted_total", "Calls that were made.");
    let mut calls = SeriesFamily::counter(
        "breakerbox_calls_total",
        "Calls that ended, by their result.",
    );
    let mut refusals = SeriesFamily::counter(
        "breakerbox_refusals_total",
        "Calls that were refused here, by the layer that refused.",
    );
    let mut fallbacks = SeriesFamily::counter(
        "breakerbox_fallback_answers_total",
        "Answers of each fallback.",
    );
    for one in statuses {
        let name = ("dependency", &*one.name);
        let (totals, counts) = (&one.totals, &one.counts);
        submitted.add(&[name], totals.submitted);
        let ends = [
            ("primary", totals.primary),
            ("fallback", totals.fallback),
            ("refused", totals.refused),
            ("failed", totals.failed),
            ("cancelled", totals.cancelled),
        ];
        for (result, count) in ends {
            calls.add(&[name, ("result", result)], count);
        }
        for by in RefusedBy::ALL {
            refusals.add(&[name, ("reason", by.as_str())], counts.refused(by));
        }
        for (fallback, served) in &one.fallbacks {
            fallbacks.add(&[name, ("fallback", fallback)], *served);
        }
    }
    [submitted, calls, refusals, fallbacks]
}

fn of_attempts(statuses: &[DependencyStatus]) -> [SeriesFamily; 5] {
    let mut attempts = SeriesFamily::counter(
        "breakerbox_attempts_total",
        "Attempts that were sent to the dependency.",
    );
    let mut outcomes = SeriesFamily::counter(
        "breakerbox_attempt_outcomes_total",
        "Attempts that ended, by the class of their outcome.",
    );
    let mut retries = SeriesFamily::counter(
        "breakerbox_retries_total",
        "Attempts after the first that were granted.",
    );
    let mut hedges = SeriesFamily::counter(
        "breakerbox_hedges_total",
        "Attempts that were sent beside another one.",
    );
    let mut late = SeriesFamily::counter(
        "breakerbox_late_outcomes_total",
        "Outcomes of an earlier generation, which changed nothing.",
    );
    for one in statuses {
        let name = ("dependency", &*one.name);
        let counts = &one.counts;
        attempts.add(&[name], one.totals.attempts);
        let classes = [
            ("success", counts.success),
            ("failure", counts.failure),
            ("throttled", counts.throttled),
            ("rejected", counts.rejected),
            ("misconfigured", counts.misconfigured),
            ("cancelled", counts.cancelled),
        ];
        for (class, count) in classes {
            outcomes.add(&[name, ("class", class)], count);
        }
        retries.add(&[name], counts.retries);
        hedges.add(&[name], one.totals.hedges);
        late.add(&[name], one.tally.late);
    }
    [attempts, outcomes, retries, hedges, late]
}

fn of_limits(statuses: &[DependencyStatus]) -> [SeriesFamily; 6] {
    let mut in_flight =
        SeriesFamily::gauge("breakerbox_in_flight", "Calls in flight at the dependency.");
    let mut limit = SeriesFamily::gauge(
        "breakerbox_in_flight_limit",
        "Current limit of calls in flight.",
    );
    let mut writes = SeriesFamily::gauge(
        "breakerbox_writes_in_flight",
        "Writes in flight at the dependency.",
    );
    let mut queue = SeriesFamily::gauge(
        "breakerbox_queue_depth",
        "Calls that wait for a bulkhead slot.",
    );
    let mut paused = SeriesFamily::gauge(
        "breakerbox_paused",
        "1 while calls are paused for this reason.",
    );
    let mut left = SeriesFamily::gauge(
        "breakerbox_pause_seconds",
        "Remaining time of the pause; 0 without a pause.",
    );
    for one in statuses {
        let name = ("dependency", &*one.name);
        in_flight.add(&[name], one.in_flight);
        limit.add(&[name], one.limit);
        writes.add(&[name], one.writes);
        queue.add(&[name], one.queued);
        for reason in [PauseReason::Throttled, PauseReason::QuotaUsedUp] {
            let is = one.paused.is_some_and(|(why, _)| why == reason);
            paused.add(&[name, ("reason", pause_name(reason))], truth(is));
        }
        let wait = one.paused.map_or(0.0, |(_, left)| left.as_secs_f64());
        left.add_exact(&[name], wait);
    }
    [in_flight, limit, writes, queue, paused, left]
}

fn of_workers(runtime: &Runtime, statuses: &[DependencyStatus]) -> [SeriesFamily; 6] {
    let mut restarts = SeriesFamily::counter("breakerbox_restarts_total", "Restarts of workers.");
    let mut running =
        SeriesFamily::gauge("breakerbox_workers_running", "Workers that accept calls.");
    let mut workers = SeriesFamily::gauge("breakerbox_workers", "All workers.");
    let mut parked = SeriesFamily::gauge(
        "breakerbox_parked",
        "1 while the workers are parked after too many crashes.",
    );
    let mut queue_limit = SeriesFamily::gauge(
        "breakerbox_queue_limit",
        "Limit of calls that wait for a bulkhead slot.",
    );
    let mut keys = SeriesFamily::gauge("breakerbox_keys", "Keys with a breaker of their own.");
    for one in statuses {
        let name = ("dependency", &*one.name);
        restarts.add(&[name], one.totals.restarts);
        let up = one.workers.iter().filter(|worker| worker.running).count();
        running.add(&[name], whole(up));
        workers.add(&[name], whole(one.workers.len()));
        parked.add(&[name], truth(one.parked));
        let settings = runtime.settings(&one.name).unwrap_or_default();
        queue_limit.add(&[name], settings.bulkhead.max_queue);
        keys.add(&[name], whole(one.keys.len()));
    }
    [restarts, running, workers, parked, queue_limit, keys]
}

fn latency(runtime: &Runtime, statuses: &[DependencyStatus]) -> SeriesFamily {
    let mut latency = SeriesFamily::histogram(
        "breakerbox_attempt_duration_seconds",
        "Duration of attempts without waits. The sum is exact to 3 %.",
    );
    for one in statuses {
        let taken = runtime.latency(&one.name).unwrap_or_default();
        latency.add_histogram(&[("dependency", &one.name)], &taken);
    }
    latency
}

fn of_admin(figures: AdminFigures) -> [SeriesFamily; 3] {
    let mut dropped = SeriesFamily::counter(
        "breakerbox_stream_events_dropped_total",
        "Events that slow readers of the event stream missed.",
    );
    dropped.add(&[], figures.missed_events);
    let mut reading =
        SeriesFamily::gauge("breakerbox_stream_readers", "Readers of the event stream.");
    reading.add(&[], whole(figures.stream_readers));
    let mut alerts = SeriesFamily::gauge(
        "breakerbox_alerts_pending",
        "Alerts that are active or acknowledged.",
    );
    alerts.add(&[], whole(figures.pending_alerts));
    [dropped, reading, alerts]
}

fn of_memory(figures: BufferedFigures) -> [SeriesFamily; 3] {
    let mut used = SeriesFamily::gauge(
        "breakerbox_buffered_bytes",
        "Bytes of bodies and answers that the gateway keeps.",
    );
    used.add(&[], figures.used);
    let mut limit = SeriesFamily::gauge(
        "breakerbox_buffered_limit_bytes",
        "Bytes that it may keep: gateway.max_buffered.",
    );
    limit.add(&[], figures.limit);
    let mut refused = SeriesFamily::counter(
        "breakerbox_buffer_refusals_total",
        "Bodies and answers that could not be kept above the limit.",
    );
    refused.add(&[], figures.refused);
    [used, limit, refused]
}

fn of_process(runtime: &Runtime, figures: AdminFigures) -> [SeriesFamily; 3] {
    let mut info = SeriesFamily::gauge(
        "breakerbox_build_info",
        "Always 1; the label tells the version.",
    );
    info.add(&[("version", env!("CARGO_PKG_VERSION"))], 1_u32);
    let mut ready = SeriesFamily::gauge("breakerbox_ready", "1 while the process accepts calls.");
    ready.add(&[], truth(figures.is_ready));
    let mut threads = SeriesFamily::gauge(
        "breakerbox_abandoned_threads",
        "Threads that were abandoned because a worker blocks them.",
    );
    threads.add(&[], whole(runtime.abandoned_threads()));
    [info, ready, threads]
}

fn truth(is: bool) -> u32 {
    u32::from(is)
}

fn whole(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
