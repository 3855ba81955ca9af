//! The last hour and the last day of all dependencies, sampled from their counters.
//!
//! The samples are taken beside the calls: no call waits for them, and without a reader they cost one
//! look at the counters each 5 s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use breakerbox_policy::Time;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::dependencies::millis;
use super::events::bad_query;
use super::kept_buckets::{EarlierBuckets, WholeStretch};
use super::problem::AdminProblem;
use super::series::{COARSE, CallSums, DependencySeries, FINE, SeriesStretch};
use super::{Admin, AdminState};
use super::{hour_file, kept_history};
use crate::Runtime;
use crate::lock::LockExt as _;

/// Number of fine buckets that are one of the overview: 30 s, as wide as a pixel of its charts.
const OVERVIEW: u32 = 6;

/// Number of samples from one write of the days to the next: a minute.
const SAMPLES_A_WRITE: u64 = 12;

type WholeStretches = Vec<(String, WholeStretch)>;
type ReadSeries = fn(&DependencySeries) -> SeriesStretch;

/// The past of all dependencies.
#[derive(Debug)]
pub(super) struct CallHistory {
    sampled: Mutex<SampledDependencies>,
    /// The last hour, and the last day, before this process.
    pub(super) earlier_hour: EarlierBuckets,
    pub(super) earlier_day: EarlierBuckets,
    /// True while a task takes the samples.
    is_kept: AtomicBool,
}

#[derive(Debug)]
struct SampledDependencies {
    /// Time of the last sample.
    last: Time,
    all: BTreeMap<String, SampledDependency>,
}

#[derive(Debug)]
struct SampledDependency {
    /// Its counters at the last sample.
    sums: CallSums,
    series: DependencySeries,
}

impl CallHistory {
    /// Begins now, with the dependencies that there are.
    pub(super) fn new(runtime: &Runtime) -> Self {
        let now = runtime.clock().now();
        let all = sums(runtime).map(|(name, sums)| {
            let series = DependencySeries::new(now);
            (name, SampledDependency { sums, series })
        });
        let all = all.collect();
        Self {
            sampled: Mutex::new(SampledDependencies { last: now, all }),
            earlier_hour: EarlierBuckets::new(FINE),
            earlier_day: EarlierBuckets::new(COARSE),
            is_kept: AtomicBool::new(false),
        }
    }

    /// Returns the last day of each dependency.
    pub(super) fn days(&self, inner: &AdminState) -> WholeStretches {
        self.whole(inner, &self.earlier_day, DependencySeries::day)
    }

    /// Returns the last hour of each dependency.
    pub(super) fn hours(&self, inner: &AdminState) -> WholeStretches {
        self.whole(inner, &self.earlier_hour, DependencySeries::hour)
    }

    fn whole(
        &self,
        inner: &AdminState,
        earlier: &EarlierBuckets,
        read: impl Fn(&DependencySeries) -> SeriesStretch,
    ) -> WholeStretches {
        let all: Vec<(String, SeriesStretch)> = {
            let sampled = self.sampled.acquire();
            let all = sampled.all.iter();
            all.map(|(name, known)| (name.clone(), read(&known.series)))
                .collect()
        };
        let whole = all.into_iter().map(|(name, stretch)| {
            let began = inner.stamps.timestamp(stretch.begin());
            let whole = earlier.before(&name, began, &stretch);
            (name, whole)
        });
        whole.collect()
    }

    /// Records what has ended since the last sample.
    fn sample(&self, runtime: &Runtime) {
        let mut sampled = self.sampled.acquire();
        let now = runtime.clock().now();
        let SampledDependencies { last, all } = &mut *sampled;
        if now <= *last {
            return;
        }
        let mut before = std::mem::take(all);
        *all = sums(runtime)
            .map(|(name, sums)| {
                let known = before.remove(&name);
                // A dependency that is new since then has counted from zero.
                let mut known = known.unwrap_or_else(|| SampledDependency {
                    sums: CallSums::default(),
                    series: DependencySeries::new(*last),
                });
                known.series.record((*last, now), sums.since(known.sums));
                known.sums = sums;
                (name, known)
            })
            .collect();
        *last = now;
    }
}

/// Returns the counters of all dependencies, by name.
fn sums(runtime: &Runtime) -> impl Iterator<Item = (String, CallSums)> {
    runtime.statuses().into_iter().map(|status| {
        let (totals, taken) = (&status.totals, runtime.latency(&status.name));
        let taken = taken.unwrap_or_default();
        let errors = totals.failed + totals.refused;
        let sums = CallSums {
            calls: totals.primary + totals.fallback + errors,
            errors,
            fallback: totals.fallback,
            attempts: taken.count,
            spent: taken.sum,
        };
        (status.name, sums)
    })
}

/// Writes the last hour and the last day, up to this moment, if there is a file for them.
#[cfg(feature = "cli")]
pub(super) async fn write(inner: &Arc<AdminState>) {
    if inner.state_file().is_some() {
        inner.history.sample(&inner.runtime);
        hour_file::write(inner).await;
        kept_history::write(inner).await;
    }
}

/// Starts the task that takes the samples, unless there is one, or no tokio runtime.
pub(super) fn keep(admin: &Admin) {
    let Ok(handle) = Handle::try_current() else {
        return;
    };
    if !admin.inner.history.is_kept.swap(true, Ordering::AcqRel) {
        let keeper = HistoryKeeper(Arc::downgrade(&admin.inner));
        handle.spawn(keeper.run());
    }
}

/// The task that takes the samples. It ends with the admin side, or with its tokio runtime; another
/// one may then follow.
struct HistoryKeeper(Weak<AdminState>);

impl HistoryKeeper {
    async fn run(self) {
        let mut samples: u64 = 0;
        // The first sample is written at once: a process that ends soon leaves its own behind.
        let mut hour_due: u64 = 1;
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait).await;
            if let Some(inner) = self.0.upgrade() {
                inner.history.sample(&inner.runtime);
                samples += 1;
                if samples >= hour_due {
                    hour_due = samples + hour_file::write(&inner).await;
                }
                if samples.is_multiple_of(SAMPLES_A_WRITE) {
                    kept_history::write(&inner).await;
                }
            }
        }
    }

    /// Returns the time to the end of the current bucket; `None` once the admin side is gone.
    fn wait(&self) -> Option<Duration> {
        let now = self.0.upgrade()?.runtime.clock().now();
        let (now, width) = (now.since(Time::ZERO).as_nanos(), FINE.0.as_nanos());
        let left = u64::try_from(width - now % width).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(left))
    }
}

impl Drop for HistoryKeeper {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.history.is_kept.store(false, Ordering::Release);
        }
    }
}

/// Figures in steps of equal width. An entry is `null` if nothing is known of its step.
#[derive(Debug, Serialize)]
pub(super) struct SeriesView {
    dependency: String,
    step_ms: u64,
    /// Begin of the first step.
    begin: String,
    calls: Vec<Option<u64>>,
    errors: Vec<Option<u64>>,
    fallback: Vec<Option<u64>>,
    /// Mean duration of an attempt; `null` for a step without attempts too.
    latency_ms: Vec<Option<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesQuery {
    step: Option<String>,
}

/// Handles `GET /api/dependencies/{name}/series`.
pub(super) async fn one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    wanted: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<SeriesView>, AdminProblem> {
    let Query(wanted) = wanted.map_err(|bad| bad_query(&bad))?;
    let inner = &admin.inner;
    let history = &inner.history;
    let (read, earlier): (ReadSeries, _) = match wanted.step.as_deref() {
        None | Some("5s") => (DependencySeries::hour, &history.earlier_hour),
        Some("1m") => (DependencySeries::day, &history.earlier_day),
        Some(other) => {
            let problem = AdminProblem::new(400, "bad-query", "there is no such step");
            return Err(problem
                .given(other)
                .allowed("5s (the last hour), 1m (the last day)"));
        }
    };
    history.sample(&inner.runtime);
    let stretch = {
        let sampled = history.sampled.acquire();
        sampled.all.get(&name).map(|known| read(&known.series))
    };
    let stretch = stretch.ok_or_else(|| AdminProblem::unknown_dependency(&admin, &name))?;
    let began = inner.stamps.timestamp(stretch.begin());
    let whole = earlier.before(&name, began, &stretch);
    Ok(Json(shown(name, &whole)))
}

/// Handles `GET /api/series`: the last hour of all dependencies, in steps of 30 s.
pub(super) async fn all(State(admin): State<Admin>) -> Json<Vec<SeriesView>> {
    let inner = &admin.inner;
    inner.history.sample(&inner.runtime);
    let all = inner.history.hours(inner).into_iter();
    let all = all.map(|(name, hour)| shown(name, &hour.joined(OVERVIEW)));
    Json(all.collect())
}

fn shown(dependency: String, stretch: &WholeStretch) -> SeriesView {
    let all = || stretch.buckets.iter();
    SeriesView {
        dependency,
        step_ms: millis(stretch.width),
        begin: super::timestamps::format(stretch.begin),
        calls: all().map(|one| one.map(|one| one.calls)).collect(),
        errors: all().map(|one| one.map(|one| one.errors)).collect(),
        fallback: all().map(|one| one.map(|one| one.fallback)).collect(),
        latency_ms: all()
            .map(|one| Some(to_millis(one.as_ref()?.latency?)))
            .collect(),
    }
}

/// Converts to milliseconds with three digits: it is known within 8 % only.
fn to_millis(latency: Duration) -> f64 {
    let ms = latency.as_secs_f64() * 1e3;
    let digits = 10f64.powf(2.0 - ms.log10().floor());
    (ms * digits).round() / digits
}
