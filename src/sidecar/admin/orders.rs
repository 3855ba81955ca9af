//! Orders of operators that outlive the process (rule HLT-3): overrides, in the section `orders` of
//! the file of `admin.state`.
//!
//! Each order is written before its answer is given. One that could not be written is carried out
//! all the same, and its answer says so.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::{BreakerCommand, IllegalTransition, OverrideMode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Admin;
use super::hour_file::HourFile;
use super::kept_buckets::KeptBuckets;
use super::kept_history;
use super::kept_notes::{self, OperatorNote};
use super::outage_book;
use super::outage_record::OutageRecord;
use crate::lock::LockExt as _;
use crate::sidecar::state_file::{StateFile, StateFileError};
use crate::{Runtime, StandingOrder};

/// Name of the section.
const SECTION: &str = "orders";

/// Orders that stand, in a file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderFile {
    inner: Arc<OrderState>,
}

#[derive(Debug)]
struct OrderState {
    file: StateFile,
    hour: Arc<HourFile>,
    orders: Mutex<BTreeMap<String, OrderRecord>>,
    /// State of earlier processes, until the admin side takes it over.
    earlier: Mutex<EarlierState>,
    /// Serializes orders with their writes: the file has the order that was carried out last.
    turn: tokio::sync::Mutex<()>,
}

/// An order in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderRecord {
    mode: RecordedMode,
    reason: String,
    by: String,
    given_at: Timestamp,
    /// End of the order; `None` for never.
    until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedMode {
    ForcedOpen,
    Disabled,
    Shadow,
}

impl From<RecordedMode> for OverrideMode {
    fn from(mode: RecordedMode) -> Self {
        match mode {
            RecordedMode::ForcedOpen => Self::ForcedOpen,
            RecordedMode::Disabled => Self::Disabled,
            RecordedMode::Shadow => Self::Shadow,
        }
    }
}

/// Effect of a command on the orders that stand.
enum OrderChange {
    Stands(RecordedMode, String),
    TakenBack,
}

impl OrderChange {
    /// Returns `None` for a command that leaves them as they are.
    fn of(command: &BreakerCommand) -> Option<Self> {
        let mode = match command {
            BreakerCommand::Open { .. } => RecordedMode::ForcedOpen,
            BreakerCommand::Disable { .. } => RecordedMode::Disabled,
            BreakerCommand::Shadow { .. } => RecordedMode::Shadow,
            BreakerCommand::Close { .. } | BreakerCommand::Reset { .. } | BreakerCommand::Clear => {
                return Some(Self::TakenBack);
            }
            _ => return None,
        };
        Some(Self::Stands(mode, command.reason().to_owned()))
    }
}

/// State of earlier processes beside the orders.
#[derive(Debug, Default)]
pub(super) struct EarlierState {
    pub(super) outages: Vec<OutageRecord>,
    pub(super) minutes: BTreeMap<String, KeptBuckets>,
    pub(super) hours: BTreeMap<String, KeptBuckets>,
    pub(super) notes: VecDeque<OperatorNote>,
}

impl OrderFile {
    /// Reads the orders of a file, and lets the dependencies that `runtime` starts from now on begin
    /// under them. Those that have ended are left out.
    ///
    /// # Errors  [`StateFileError`]: no order is dropped in silence, so a program should not go on
    /// without the file.
    pub fn restore(path: &Path, runtime: &Runtime) -> Result<Self, StateFileError> {
        let file = StateFile::open(path)?;
        let orders = records(file.section(SECTION), path)?;
        let outages = outage_book::records(file.section(outage_book::SECTION), path)?;
        let minutes = kept_history::minutes(file.section(kept_history::SECTION), path)?;
        let notes = kept_notes::records(file.section(kept_notes::SECTION), path)?;
        let hour = HourFile::beside(path);
        let wall = runtime.clock().wall();
        let mut standing = BTreeMap::new();
        for (name, order) in orders {
            if order.has_ended(wall) {
                tracing::info!(dependency = name, "an order of an operator has ended");
                continue;
            }
            runtime.set_standing_order(&name, Some(order.standing(runtime)));
            standing.insert(name, order);
        }
        Ok(Self {
            inner: Arc::new(OrderState {
                file,
                orders: Mutex::new(standing),
                earlier: Mutex::new(EarlierState {
                    outages,
                    minutes,
                    hours: hour.read(),
                    notes,
                }),
                hour: Arc::new(hour),
                turn: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// Checks a file as [`OrderFile::restore`] does, beside a process that may use it.
    #[cfg(feature = "cli")]
    pub(crate) fn check(path: &Path) -> Result<(), StateFileError> {
        crate::sidecar::state_file::check(path, |sections| {
            let outages = sections.get(outage_book::SECTION).cloned();
            outage_book::records(outages, path)?;
            let minutes = sections.get(kept_history::SECTION).cloned();
            kept_history::minutes(minutes, path)?;
            kept_notes::records(sections.get(kept_notes::SECTION).cloned(), path)?;
            records(sections.get(SECTION).cloned(), path).map(drop)
        })
    }

    pub(super) fn file(&self) -> StateFile {
        self.inner.file.clone()
    }

    pub(super) fn hour_file(&self) -> Arc<HourFile> {
        Arc::clone(&self.inner.hour)
    }

    /// Returns the state of earlier processes that the file had at its start.
    pub(super) fn take_earlier(&self) -> EarlierState {
        std::mem::take(&mut *self.inner.earlier.acquire())
    }

    /// Returns the absolute path of the file, and the number of orders that stand in it.
    #[cfg(feature = "cli")]
    pub(crate) fn present(&self) -> (std::path::PathBuf, usize) {
        let path = self.inner.file.path();
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        (path, self.inner.orders.acquire().len())
    }

    /// The names of the dependencies with an order.
    pub fn names(&self) -> Vec<String> {
        self.inner.orders.acquire().keys().cloned().collect()
    }

    /// Carries out a command, and writes its effect.
    async fn carry_out(
        &self,
        runtime: &Runtime,
        (name, command, by): (&str, BreakerCommand, &str),
        for_: Option<Duration>,
    ) -> Option<Result<Result<(), String>, IllegalTransition>> {
        let _one_at_a_time = self.inner.turn.lock().await;
        let change = OrderChange::of(&command);
        if let Err(illegal) = runtime.operate_by(name, command, by).await? {
            return Some(Err(illegal));
        }
        let Some(change) = change else {
            return Some(Ok(Ok(())));
        };
        self.note(runtime, (name, change, by), for_);
        Some(Ok(self.write(runtime).await))
    }

    /// Removes the order of a dependency that an operator has closed for the whole fleet.
    #[cfg(feature = "fleet")]
    pub(super) async fn remove_order(&self, runtime: &Runtime, name: &str) {
        let _one_at_a_time = self.inner.turn.lock().await;
        if self.inner.orders.acquire().contains_key(name) {
            // FLT-12: a close of the fleet ends the orders of each replica too, after a restart as well.
            self.note(runtime, (name, OrderChange::TakenBack, ""), None);
            // A failure is told in the log.
            let _ = self.write(runtime).await;
        }
    }

    fn note(
        &self,
        runtime: &Runtime,
        (name, change, by): (&str, OrderChange, &str),
        for_: Option<Duration>,
    ) {
        let mut orders = self.inner.orders.acquire();
        match change {
            OrderChange::Stands(mode, reason) => {
                let now = runtime.clock().wall();
                let order = OrderRecord {
                    mode,
                    reason,
                    by: by.to_owned(),
                    given_at: now,
                    until: for_.map(|for_| now.saturating_add(for_).unwrap_or(Timestamp::MAX)),
                };
                runtime.set_standing_order(name, Some(order.standing(runtime)));
                orders.insert(name.to_owned(), order);
            }
            OrderChange::TakenBack => {
                runtime.set_standing_order(name, None);
                orders.remove(name);
            }
        }
    }

    async fn write(&self, runtime: &Runtime) -> Result<(), String> {
        let wall = runtime.clock().wall();
        let orders = {
            let mut orders = self.inner.orders.acquire();
            // HLT-3: ended orders are dropped.
            orders.retain(|_, order| !order.has_ended(wall));
            serde_json::to_value(&*orders)
        };
        let file = self.inner.file.clone();
        // A slow disk must not delay the other requests of this thread.
        let written = tokio::task::spawn_blocking(move || file.put(SECTION, orders?)).await;
        let problem = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(ended) => ended.to_string(),
        };
        let path = self.inner.file.path().display().to_string();
        tracing::error!(path, problem, "the orders of operators cannot be written");
        Err(format!("{path} cannot be written ({problem})"))
    }
}

#[cfg(feature = "cli")]
impl Admin {
    /// Returns the absolute path of the file of `admin.state`, and the number of orders in it.
    pub(crate) fn kept_orders(&self) -> Option<(std::path::PathBuf, usize)> {
        self.inner.orders.get().map(OrderFile::present)
    }
}

impl OrderRecord {
    fn has_ended(&self, wall: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= wall)
    }

    fn standing(&self, runtime: &Runtime) -> StandingOrder {
        let clock = runtime.clock();
        let until = self.until.map(|until| {
            let left = until.duration_since(clock.wall()).max(SignedDuration::ZERO);
            clock.now().after(left.unsigned_abs())
        });
        StandingOrder {
            mode: self.mode.into(),
            reason: self.reason.clone(),
            by: self.by.clone(),
            until,
        }
    }
}

/// Reads the section.
fn records(
    section: Option<Value>,
    path: &Path,
) -> Result<BTreeMap<String, OrderRecord>, StateFileError> {
    let Some(section) = section else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_value(section).map_err(|error| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason: format!("its section \"{SECTION}\" cannot be used: {error}"),
    })
}

/// Result of a command that was carried out.
pub(super) struct CarriedOut {
    /// The time for which an override holds; `None` for a command that sets none.
    pub(super) holds: Option<String>,
    /// A warning or a hint for the operator beside that.
    pub(super) note: Option<String>,
}

/// Carries out a command, and remembers it if there is a file for it. `None`: there is no such
/// dependency.
///
/// # Cancel safety   Dropped, it is carried out and remembered all the same.
pub(super) async fn carry_out(
    admin: &Admin,
    name: &str,
    command: BreakerCommand,
    by: String,
    for_: Option<Duration>,
) -> Option<Result<CarriedOut, IllegalTransition>> {
    let change = OrderChange::of(&command);
    let file = admin.inner.orders.get().cloned();
    let (runtime, own) = (admin.runtime().clone(), name.to_owned());
    let until = command.until().map(|until| admin.inner.stamps.of(until));
    let is_kept = file.is_some();
    let closes = matches!(
        command,
        BreakerCommand::Close { .. } | BreakerCommand::Reset { .. }
    );
    let is_sick = || {
        let status = runtime.status(name);
        // A parked one stays open until a worker runs, so that nothing is closed yet.
        status.is_some_and(|one| one.outage.is_some() && !one.parked)
    };
    let ends_outage = closes && is_sick();
    let done = async move {
        match file {
            Some(file) => file.carry_out(&runtime, (&own, command, &by), for_).await,
            None => {
                let done = runtime.operate_by(&own, command, &by).await?;
                Some(done.map(Ok))
            }
        }
    };
    // A caller that goes away leaves no order between the breaker and the file.
    let written = match tokio::spawn(done).await.ok()?? {
        Ok(written) => written,
        Err(illegal) => return Some(Err(illegal)),
    };
    let stands = matches!(change, Some(OrderChange::Stands(..)));
    let is_written = written.is_ok();
    Some(Ok(CarriedOut {
        holds: stands.then(|| holds(until, is_kept, is_written)),
        note: match written {
            // HLT-1: the order alone makes nothing well.
            Ok(()) if ends_outage => Some(
                "it is closed by this order alone: only the next calls tell whether it answers"
                    .to_owned(),
            ),
            Ok(()) => None,
            Err(problem) if stands => Some(problem),
            Err(problem) => Some(format!(
                "{problem}: after a restart, an earlier order may hold again"
            )),
        },
    }))
}

/// Returns the end of an override, in words.
fn holds(until: Option<String>, is_kept: bool, is_written: bool) -> String {
    let end = until.unwrap_or_else(|| "an operator closes it".to_owned());
    match (is_kept, is_written) {
        (true, true) => format!("until {end}, after a restart too"),
        (true, false) => {
            format!("until this process ends, or {end}: it could not be kept in admin.state")
        }
        (false, _) => {
            format!("until this process ends, or {end}; admin.state keeps orders over a restart")
        }
    }
}
