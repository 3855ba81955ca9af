//! The state of the dependencies as JSON; the field names are a contract.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use breakerbox_policy::{
    BreakerSettings, ChaosSettings, CountedNoun, DependencySettings, Override, PauseReason,
    State as Breaker, WindowCounts, WindowKind,
};
use serde::Serialize;

use super::active_probe::{self, ActiveProbeView};
use super::outages::{self, AnswersView, OutageView};
use super::problem::AdminProblem;
use super::tools::{self, ToolView};
use super::{Admin, AdminState};
use crate::config::DependencyKind;
use crate::rounded;
use crate::sidecar::names::{health_name, pause_name, state_name};
use crate::{DependencyStatus, Health, KeyStatus, WorkerStatus};
use breakerbox_actors::redact;

/// Maximum number of keys shown of a dependency; it may have many more.
const MAX_KEYS: usize = 100;

/// A dependency, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct DependencyView {
    name: String,
    kind: &'static str,
    /// Scheme, host and port of its address, if it has one.
    upstream: Option<String>,
    /// Pages for the operator, by name.
    links: BTreeMap<String, String>,
    state: &'static str,
    #[serde(rename = "override")]
    overridden: Option<OverrideView>,
    generation: u64,
    since: String,
    reason: String,
    retry_after_ms: Option<u64>,
    /// When an open breaker admits its first probe.
    next_probe_at: Option<String>,
    half_open: Option<HalfOpenStatusView>,
    window: WindowView,
    totals: CallTotals,
    latency_ms: LatencyMillis,
    in_flight: u32,
    queued: u32,
    limits: LimitsView,
    workers: Vec<WorkerView>,
    fallbacks: Vec<FallbackView>,
    health: &'static str,
    health_reason: Option<String>,
    /// Answers that callers got in the last seconds, by which the health is told.
    answers: AnswersView,
    /// The state of a dependency that is not well, in a sentence.
    line: Option<String>,
    /// True if an open time is over and no call has come to try the dependency.
    waits_for_call: bool,
    outage: Option<OutageView>,
    parked: bool,
    pause: Option<PauseView>,
    rate_limit: Option<RateLimitView>,
    chaos: Option<ChaosView>,
    probe: Option<ActiveProbeView>,
    key_count: usize,
    keys: Vec<KeyView>,
    /// Protocol version of an MCP server, once it was reached.
    protocol_version: Option<String>,
    /// Tools of an MCP server. The view of all dependencies has only those that are called most.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<ToolView>>,
    /// Last lines that the process of an MCP server wrote to its standard error. Present only in
    /// the view of a single dependency.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<Vec<String>>,
    /// The same of the previous incarnation, which ended with `last_exit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_stderr: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct OverrideView {
    mode: String,
    reason: String,
    by: String,
    until: Option<String>,
}

#[derive(Debug, Serialize)]
struct HalfOpenStatusView {
    successes: u64,
    needed: u64,
    in_flight: u64,
    results: u64,
}

#[derive(Debug, Serialize)]
struct WindowView {
    calls: u64,
    failures: u64,
    slow: u64,
    /// `None` before `minimum_calls` calls, as below.
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    minimum_calls: u64,
    consecutive_failures: u64,
    /// The window in words.
    text: String,
}

#[derive(Debug, Serialize)]
struct CallTotals {
    submitted: u64,
    primary: u64,
    fallback: u64,
    refused: u64,
    failed: u64,
    late: u64,
    cancelled: u64,
    attempts: u64,
    retries: u64,
    hedges: u64,
    restarts: u64,
    trips: u64,
}

#[derive(Debug, Serialize)]
struct LatencyMillis {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    /// Number and total duration of finished attempts. The difference of two views gives the mean
    /// between them.
    count: u64,
    sum: f64,
}

#[derive(Debug, Serialize)]
struct LimitsView {
    /// Current limit of concurrent calls.
    concurrent: u32,
    max_concurrent: u32,
    max_concurrent_writes: Option<u32>,
    max_queue: u32,
    failure_threshold: Option<u32>,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    attempt_timeout_ms: Option<u64>,
    total_timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    id: u32,
    state: &'static str,
    incarnation: u64,
    restarts: u64,
    last_exit: Option<String>,
    back_in_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FallbackView {
    name: String,
    served: u64,
}

#[derive(Debug, Serialize)]
struct PauseView {
    reason: &'static str,
    ends_in_ms: u64,
}

#[derive(Debug, Serialize)]
struct RateLimitView {
    rate: f64,
    per_ms: u64,
    burst: u32,
    max_wait_ms: u64,
    /// True for one limit of all replicas of the fleet.
    shared: bool,
}

#[derive(Debug, Serialize)]
struct ChaosView {
    latency_rate: f64,
    latency_ms: u64,
    error_rate: f64,
    hang_rate: f64,
    panic_rate: f64,
}

#[derive(Debug, Serialize)]
struct KeyView {
    key: String,
    state: &'static str,
    #[serde(rename = "override")]
    overridden: Option<OverrideView>,
    reason: String,
    retry_after_ms: Option<u64>,
    pause: Option<PauseView>,
    window: WindowView,
}

pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<DependencyView>> {
    Json(all(&admin))
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<DependencyView>, AdminProblem> {
    let view = named(&admin, &name);
    view.map(Json)
        .ok_or_else(|| AdminProblem::unknown_dependency(&admin, &name))
}

/// Returns the dependency of this name.
pub(super) fn named(admin: &Admin, name: &str) -> Option<DependencyView> {
    let status = admin.runtime().status(name)?;
    let view = view(admin, status);
    #[cfg(feature = "mcp")]
    if let Some(server) = admin.server(name) {
        return Some(DependencyView {
            tools: tools::all(admin, name),
            stderr: Some(server.stderr()),
            last_stderr: Some(server.last_words()),
            ..view
        });
    }
    Some(view)
}

/// Returns all dependencies, by name.
pub(super) fn all(admin: &Admin) -> Vec<DependencyView> {
    let statuses = admin.runtime().statuses().into_iter();
    statuses.map(|one| view(admin, one)).collect()
}

/// Shows a dependency without a worker as what its callers find: open, for the supervisor's reason,
/// until the next start of a worker.
pub(super) fn shown(mut status: DependencyStatus) -> DependencyStatus {
    let Some(set) = status.overridden.as_ref().filter(|_| status.parked) else {
        return status;
    };
    // SUP-4: it is not told as closed while every call is refused.
    status.state = Breaker::Open;
    status.reason.clone_from(&set.reason);
    status.retry_after = status.workers.iter().filter_map(|one| one.back_in).min();
    status
}

fn view(admin: &Admin, status: DependencyStatus) -> DependencyView {
    let status = shown(status);
    let inner = &admin.inner;
    let settings = inner.runtime.settings(&status.name).unwrap_or_default();
    let kind = admin.kind_of(&status.name);
    let profile = admin.profile_of(&status.name);
    let now = inner.stamps.now();
    let opens_at = status.retry_after.filter(|_| status.state == Breaker::Open);
    let (health, health_reason) = (health_name(&status.health), reason_of(&status.health));
    let key_count = status.keys.len();
    let (totals, latency_ms) = (totals(&status), latency(inner, &status));
    let (line, outage) = (outages::line(inner, &status), status.outage.as_ref());
    let outage = outage.map(|one| outages::view(inner, &status.name, one, Some(&status)));
    let window = window(&status.window, &settings.breaker, status.minimum_calls);
    DependencyView {
        kind: kind.map_or("library", kind_word),
        upstream: profile.upstream,
        links: profile.links,
        state: state_name(status.state),
        overridden: status.overridden.map(|set| over(inner, set)),
        generation: status.generation,
        since: inner.stamps.of(status.since),
        reason: redact(&status.reason).into_owned(),
        retry_after_ms: status.retry_after.map(millis),
        next_probe_at: opens_at.map(|wait| inner.stamps.of(now.after(wait))),
        half_open: status.half_open.map(|period| HalfOpenStatusView {
            successes: period.successes,
            needed: period.needed,
            in_flight: period.in_flight,
            results: period.results,
        }),
        window,
        totals,
        latency_ms,
        in_flight: status.in_flight,
        queued: status.queued,
        limits: limits(status.limit, &settings),
        workers: status.workers.into_iter().map(worker).collect(),
        fallbacks: status
            .fallbacks
            .into_iter()
            .map(|(name, served)| FallbackView { name, served })
            .collect(),
        health,
        health_reason,
        answers: outages::answers(&status.answers),
        line,
        waits_for_call: status.waits_for_call,
        outage,
        parked: status.parked,
        pause: status.paused.map(pause),
        rate_limit: settings.rate_limit.map(|limit| RateLimitView {
            rate: limit.rate,
            per_ms: millis(limit.per),
            burst: limit.burst.get(),
            max_wait_ms: millis(limit.max_wait),
            shared: settings.rate_sharing.is_some(),
        }),
        chaos: status.chaos.as_ref().map(chaos),
        probe: status
            .active_probes
            .map(|probes| active_probe::view(inner, probes)),
        key_count,
        keys: status
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .map(|one| key(inner, &settings.breaker, one))
            .collect(),
        protocol_version: protocol_version(admin, &status.name),
        tools: tools::most_called(admin, &status.name),
        stderr: None,
        last_stderr: None,
        name: status.name,
    }
}

fn totals(status: &DependencyStatus) -> CallTotals {
    let totals = &status.totals;
    CallTotals {
        submitted: totals.submitted,
        primary: totals.primary,
        fallback: totals.fallback,
        refused: totals.refused,
        failed: totals.failed,
        late: status.tally.late,
        cancelled: totals.cancelled,
        attempts: totals.attempts,
        retries: status.counts.retries,
        hedges: totals.hedges,
        restarts: totals.restarts,
        trips: totals.trips,
    }
}

fn latency(inner: &AdminState, status: &DependencyStatus) -> LatencyMillis {
    let taken = inner.runtime.latency(&status.name).unwrap_or_default();
    LatencyMillis {
        p50: status.latency.p50.map(rounded::millis),
        p90: status.latency.p90.map(rounded::millis),
        p99: status.latency.p99.map(rounded::millis),
        count: taken.count,
        sum: rounded::millis(taken.sum),
    }
}

#[cfg(feature = "mcp")]
fn protocol_version(admin: &Admin, name: &str) -> Option<String> {
    admin.server(name)?.protocol_version()
}

#[cfg(not(feature = "mcp"))]
fn protocol_version(_: &Admin, _: &str) -> Option<String> {
    None
}

fn limits(concurrent: u32, settings: &DependencySettings) -> LimitsView {
    let DependencySettings {
        bulkhead, breaker, ..
    } = settings;
    let threshold = breaker.failure_threshold.or(breaker.consecutive_failures);
    LimitsView {
        concurrent,
        max_concurrent: bulkhead.max_concurrent.get(),
        max_concurrent_writes: bulkhead.max_concurrent_writes.map(u32::from),
        max_queue: bulkhead.max_queue,
        failure_threshold: threshold.map(u32::from),
        failure_rate: breaker.failure_rate.map(|rate| rate.as_f64()),
        slow_rate: breaker.slow_rate.map(|rate| rate.as_f64()),
        attempt_timeout_ms: settings.timeout.attempt.map(millis),
        total_timeout_ms: settings.timeout.total.map(millis),
    }
}

fn worker(one: WorkerStatus) -> WorkerView {
    let state = match (one.running, one.incarnation, one.back_in) {
        (true, _, _) => "running",
        (false, _, Some(_)) => "waiting",
        (false, 0, None) => "starting",
        (false, _, None) => "down",
    };
    WorkerView {
        id: one.id,
        state,
        incarnation: one.incarnation,
        restarts: one.restarts,
        last_exit: one
            .last_exit
            .map(|cause| redact(&cause.to_string()).into_owned()),
        back_in_ms: one.back_in.map(millis),
    }
}

fn pause((reason, left): (PauseReason, Duration)) -> PauseView {
    PauseView {
        reason: pause_name(reason),
        ends_in_ms: millis(left),
    }
}

fn key(inner: &AdminState, breaker: &BreakerSettings, one: KeyStatus) -> KeyView {
    KeyView {
        key: one.key,
        state: state_name(one.state),
        overridden: one.overridden.map(|set| over(inner, set)),
        reason: redact(&one.reason).into_owned(),
        retry_after_ms: one.retry_after.map(millis),
        pause: one.paused.map(pause),
        window: window(&one.window, breaker, one.minimum_calls),
    }
}

fn over(inner: &AdminState, set: Override) -> OverrideView {
    OverrideView {
        mode: set.mode.to_string(),
        reason: redact(&set.reason).into_owned(),
        by: set.by.to_string(),
        until: set.until.map(|until| inner.stamps.of(until)),
    }
}

fn window(counts: &WindowCounts, settings: &BreakerSettings, minimum_calls: u64) -> WindowView {
    WindowView {
        calls: counts.calls,
        failures: counts.failures,
        slow: counts.slow,
        failure_rate: counts.failure_rate(minimum_calls),
        slow_rate: counts.slow_rate(minimum_calls),
        minimum_calls,
        consecutive_failures: counts.consecutive_failures,
        text: window_text(counts, settings, minimum_calls),
    }
}

/// Returns the window in words: a run of failures as one, and rates of enough calls only.
fn window_text(counts: &WindowCounts, settings: &BreakerSettings, minimum_calls: u64) -> String {
    let threshold = settings.failure_threshold.or(settings.consecutive_failures);
    if settings.window == WindowKind::Consecutive {
        let run = counts.consecutive_failures;
        return match threshold {
            Some(threshold) => format!("failures in a row: {run} of {threshold}"),
            None => format!("failures in a row: {run}"),
        };
    }
    let percent = |rate: f64| format!("{:.0} %", rate * 100.0);
    let WindowCounts {
        calls,
        failures,
        slow,
        ..
    } = counts;
    match (
        counts.failure_rate(minimum_calls),
        counts.slow_rate(minimum_calls),
    ) {
        (Some(failed), Some(slowly)) => format!(
            "{}, {failures} failed ({}), {slow} slow ({})",
            CountedNoun(*calls, "call"),
            percent(failed),
            percent(slowly)
        ),
        // BRK-14: before that, how many of how many have come.
        _ => format!("{calls} of {minimum_calls} calls, {failures} failed, {slow} slow"),
    }
}

fn chaos(set: &ChaosSettings) -> ChaosView {
    ChaosView {
        latency_rate: set.latency_rate.as_f64(),
        latency_ms: millis(set.latency),
        error_rate: set.error_rate.as_f64(),
        hang_rate: set.hang_rate.as_f64(),
        panic_rate: set.panic_rate.as_f64(),
    }
}

pub(super) fn reason_of(health: &Health) -> Option<String> {
    match health {
        Health::Ok => None,
        Health::Degraded { reason } | Health::Down { reason } => Some(redact(reason).into_owned()),
    }
}

fn kind_word(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Http => "http",
        DependencyKind::Model => "model",
        DependencyKind::Pool => "pool",
        DependencyKind::McpStdio => "mcp_stdio",
        DependencyKind::McpHttp => "mcp_http",
        DependencyKind::McpGroup => "mcp_group",
        DependencyKind::Simulated => "simulated",
    }
}

/// Converts to whole milliseconds, rounded up: no client is told to retry too early.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
