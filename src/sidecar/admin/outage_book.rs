//! The outages of this process and of earlier ones, in the section `outages` of the file of
//! `admin.state` (rules HLT-2 and HLT-3).
//!
//! It keeps also those of dependencies that are removed. A begin, an end and an acknowledgement are
//! in the file within a second, the figures of an outage that stands within ten; an orderly stop
//! writes what is left. It decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use breakerbox_policy::Time;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::outage_record::{AckRecord, OutageEnd, OutageRecord};
use super::{Admin, AdminState};
use crate::lock::LockExt as _;
use crate::sidecar::state_file::{StateFile, StateFileError};
use crate::{Event, Runtime};
use breakerbox_actors::redact;

/// Name of the section.
pub(super) const SECTION: &str = "outages";

/// Maximum number of outages that are kept.
const MAX_OUTAGES: usize = 500;

/// Time between an event and the look at the outages, so that a burst of events causes one.
const BURST: Duration = Duration::from_millis(200);

/// Time between two looks without an event, and between two writes of mere figures.
const RHYTHM: Duration = Duration::from_secs(10);

/// The outages that are kept.
#[derive(Debug, Default)]
pub(super) struct OutageBook {
    kept: Mutex<KeptOutages>,
    /// Held while they are written.
    writing: Mutex<()>,
    /// True while a task writes them.
    is_kept: AtomicBool,
    /// True while they cannot be written.
    is_failing: AtomicBool,
}

#[derive(Debug, Default)]
struct KeptOutages {
    /// By number, the newest last.
    all: Vec<OutageRecord>,
    file: Option<StateFile>,
    /// As the file has them, with the time of the write.
    written: Vec<OutageRecord>,
    written_at: Time,
}

/// Reads the section.
///
/// # Errors  It is not as this version writes it.
pub(super) fn records(
    section: Option<Value>,
    path: &Path,
) -> Result<Vec<OutageRecord>, StateFileError> {
    let Some(section) = section else {
        return Ok(Vec::new());
    };
    serde_json::from_value(section).map_err(|error| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason: format!("its section \"{SECTION}\" cannot be used: {error}"),
    })
}

impl OutageBook {
    /// Takes over the outages of an earlier process, and keeps those of this one in the file too.
    pub(super) fn restore(&self, runtime: &Runtime, file: StateFile, earlier: Vec<OutageRecord>) {
        let now = super::timestamps::format(runtime.clock().wall());
        let mut kept = self.kept.acquire();
        let last = earlier.iter().map(|one| one.id).max();
        runtime.number_outages_after(last.unwrap_or(0));
        kept.written.clone_from(&earlier);
        kept.all = earlier;
        for one in kept.all.iter_mut().filter(|one| one.ended.is_none()) {
            // HLT-3: it is not known when it ended, only that this process has not seen it.
            one.ended = Some(now.clone());
            one.ended_by = Some(OutageEnd::Restart);
        }
        kept.bound();
        kept.file = Some(file);
    }

    /// Returns the outages that are kept: those that stand, then the ended ones, newest first.
    pub(super) fn list(&self, inner: &AdminState) -> Vec<OutageRecord> {
        let mut all = self.look(inner);
        all.sort_by_key(|one| (one.ended.is_some(), std::cmp::Reverse(one.id)));
        all
    }

    /// Takes over the runtime's present outages.
    fn look(&self, inner: &AdminState) -> Vec<OutageRecord> {
        // Before the lock: a look at the health may tell listeners.
        let present = inner.runtime.outages();
        let present: Vec<OutageRecord> = present
            .iter()
            .map(|one| OutageRecord::of(inner, &one.dependency, &one.outage))
            .collect();
        let now = inner.stamps.of(inner.stamps.now());
        let mut kept = self.kept.acquire();
        kept.follow(present, &now);
        kept.all.clone()
    }

    /// Notes that an operator looks after an outage that the runtime does not know any more. Returns
    /// its dependency; `None` if no outage of this number is kept.
    pub(super) fn acknowledge(
        &self,
        inner: &AdminState,
        id: u64,
        (by, note): (&str, &str),
    ) -> Option<String> {
        let at = inner.stamps.of(inner.stamps.now());
        let mut kept = self.kept.acquire();
        let one = kept.all.iter_mut().find(|one| one.id == id)?;
        one.ack = Some(AckRecord {
            by: by.to_owned(),
            note: redact(note).into_owned(),
            at,
        });
        Some(one.dependency.clone())
    }

    /// Writes the outages into the file, if there is one and they have changed.
    ///
    /// # Cancel safety   Dropped, they are written all the same.
    pub(super) async fn write(inner: &Arc<AdminState>) {
        Self::write_if(inner, KeptOutages::is_due).await;
    }

    /// Writes the outages as [`OutageBook::write`] does, with figures that are not due: nothing is
    /// written after it.
    #[cfg(feature = "cli")]
    pub(super) async fn write_last(inner: &Arc<AdminState>) {
        Self::write_if(inner, |_, _| true).await;
    }

    async fn write_if(inner: &Arc<AdminState>, is_due: fn(&KeptOutages, Time) -> bool) {
        inner.outages.look(inner);
        if inner.outages.kept.acquire().file.is_none() {
            return;
        }
        let (own, now) = (Arc::clone(inner), inner.stamps.now());
        // A slow disk must not delay the requests of this thread.
        let written = tokio::task::spawn_blocking(move || own.outages.write_due(now, is_due));
        let problem = match written.await {
            Ok(Ok(())) => return inner.outages.is_failing.store(false, Ordering::Relaxed),
            Ok(Err(error)) => error.to_string(),
            Err(ended) => ended.to_string(),
        };
        // It is tried again with each event, and a full disk may hold the log too: told once.
        if !inner.outages.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(problem, "admin.state cannot be written: the outages");
        }
    }

    /// Writes them if they have changed and are due. Blocks until they are on the disk.
    fn write_due(&self, now: Time, is_due: fn(&KeptOutages, Time) -> bool) -> io::Result<()> {
        // HLT-3: of two writes the later one has the later state, and waits for the other.
        let _one_at_a_time = self.writing.acquire();
        let due = self.kept.acquire().due_write(now, is_due);
        let Some((file, all)) = due else {
            return Ok(());
        };
        file.put(SECTION, serde_json::to_value(&all)?)?;
        // HLT-3: a write that failed is tried again.
        let mut kept = self.kept.acquire();
        (kept.written, kept.written_at) = (all, now);
        Ok(())
    }
}

impl KeptOutages {
    /// Takes over the outages that the runtime keeps. One that stood, and is not among them, was that
    /// of a dependency that is removed.
    fn follow(&mut self, present: Vec<OutageRecord>, now: &str) {
        for one in self.all.iter_mut().filter(|one| one.ended.is_none()) {
            if !present.iter().any(|known| known.id == one.id) {
                one.ended = Some(now.to_owned());
                one.ended_by = Some(OutageEnd::Removal);
            }
        }
        for one in present {
            match self.all.binary_search_by_key(&one.id, |kept| kept.id) {
                Ok(at) => self.all[at] = one,
                Err(at) => self.all.insert(at, one),
            }
        }
        self.bound();
    }

    /// Drops ended ones beyond the bound: the oldest of the dependency that has most of them, so that
    /// one that comes and goes does not push out the outages of the others.
    fn bound(&mut self) {
        self.all.sort_by_key(|one| one.id);
        let excess = self.all.len().saturating_sub(MAX_OUTAGES);
        if excess == 0 {
            return;
        }
        let mut ended: BTreeMap<String, usize> = BTreeMap::new();
        for one in self.all.iter().filter(|one| one.ended.is_some()) {
            *ended.entry(one.dependency.clone()).or_default() += 1;
        }
        let mut goes: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..excess {
            let most = ended.iter_mut().max_by_key(|(_, count)| **count);
            // Those that stand stay.
            let Some((name, count)) = most.filter(|(_, count)| **count > 0) else {
                break;
            };
            *count -= 1;
            *goes.entry(name.clone()).or_default() += 1;
        }
        self.all.retain(|one| {
            let left = goes.get_mut(&one.dependency).filter(|left| **left > 0);
            match left.filter(|_| one.ended.is_some()) {
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => true,
            }
        });
    }

    /// Returns true if more than figures has changed, or figures were not written for long.
    fn is_due(&self, now: Time) -> bool {
        let mut pairs = self.all.iter().zip(&self.written);
        self.all.len() != self.written.len()
            || pairs.any(|(one, old)| one.differs(old))
            || now.since(self.written_at) >= RHYTHM
    }

    /// Returns the file and its new section, if it has changed and is due.
    fn due_write(
        &self,
        now: Time,
        is_due: fn(&Self, Time) -> bool,
    ) -> Option<(StateFile, Vec<OutageRecord>)> {
        let file = self.file.clone()?;
        if self.all == self.written || !is_due(self, now) {
            return None;
        }
        Some((file, self.all.clone()))
    }
}

/// Starts the task that follows the outages, unless there is one, or no tokio runtime.
pub(super) fn keep(admin: &Admin) {
    let Ok(handle) = Handle::try_current() else {
        return;
    };
    if !admin.inner.outages.is_kept.swap(true, Ordering::AcqRel) {
        let events = admin.runtime().events();
        let keeper = OutageKeeper(Arc::downgrade(&admin.inner));
        handle.spawn(keeper.run(events));
    }
}

/// The task that follows the outages. It ends with the admin side, or with its tokio runtime; another
/// one may then follow.
struct OutageKeeper(Weak<AdminState>);

impl OutageKeeper {
    async fn run(self, mut events: Receiver<Event>) {
        loop {
            let Some(inner) = self.0.upgrade() else {
                return;
            };
            OutageBook::write(&inner).await;
            drop(inner);
            // An outage can end without an event of its own, and its figures have none.
            match tokio::time::timeout(RHYTHM, events.recv()).await {
                Err(_) | Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                // The runtime has ended: there is nothing more to follow.
                Ok(Err(RecvError::Closed)) => return,
            }
            tokio::time::sleep(BURST).await;
            events = events.resubscribe();
        }
    }
}

impl Drop for OutageKeeper {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.outages.is_kept.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outage_record::{AffectedCalls, CauseRecord};
    use super::*;

    fn outage(id: u64, ended: bool) -> OutageRecord {
        OutageRecord {
            id,
            dependency: "web".to_owned(),
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            ended: ended.then(|| "2026-01-01T00:01:00.000Z".to_owned()),
            ended_by: ended.then_some(OutageEnd::Recovery),
            cause: CauseRecord {
                kind: "status".to_owned(),
                text: "500 from the dependency".to_owned(),
                status: Some(500),
                limit: None,
                rule: String::new(),
            },
            probes: 0,
            probes_failed: 0,
            last_probe: None,
            affected: AffectedCalls {
                calls: 0,
                errors: 0,
                by_fallback: 0,
            },
            ack: None,
        }
    }

    fn ids(kept: &KeptOutages) -> Vec<u64> {
        kept.all.iter().map(|one| one.id).collect()
    }

    #[test]
    fn hlt_2_an_outage_of_a_removed_dependency_stays_and_has_an_end() {
        let mut kept = KeptOutages::default();
        kept.follow(vec![outage(1, false), outage(2, true)], "now");
        kept.follow(vec![outage(3, false)], "later");
        assert_eq!(ids(&kept), [1, 2, 3]);
        assert_eq!(kept.all[0].ended.as_deref(), Some("later"));
        assert_eq!(kept.all[0].ended_by, Some(OutageEnd::Removal));
        assert_eq!(kept.all[1].ended_by, Some(OutageEnd::Recovery));
        assert_eq!(kept.all[2].ended, None);
    }

    #[test]
    fn hlt_3_the_newest_outages_are_kept_and_those_that_stand() {
        let mut kept = KeptOutages::default();
        let many = (1..=MAX_OUTAGES as u64 + 100).map(|id| outage(id, id != 7));
        kept.follow(many.collect(), "now");
        assert_eq!(kept.all.len(), MAX_OUTAGES);
        assert_eq!(ids(&kept)[..3], [7, 102, 103]);
    }

    #[test]
    fn hlt_3_a_dependency_that_comes_and_goes_pushes_out_its_own_outages() {
        let of = |id: u64, name: &str| OutageRecord {
            dependency: name.to_owned(),
            ..outage(id, true)
        };
        let mut kept = KeptOutages::default();
        kept.follow((1..=3).map(|id| of(id, "quiet")).collect(), "now");
        let many = (4..=MAX_OUTAGES as u64 + 100).map(|id| of(id, "flaps"));
        kept.follow(many.collect(), "now");
        assert_eq!(kept.all.len(), MAX_OUTAGES);
        assert_eq!(ids(&kept)[..4], [1, 2, 3, 104]);
    }

    #[test]
    fn hlt_3_figures_alone_are_written_seldom() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("state.json")).unwrap();
        let book = OutageBook::default();
        let at = |seconds: u64| Time::from_millis(seconds * 1_000);
        let follow = |one: OutageRecord| book.kept.acquire().follow(vec![one], "now");
        // Writes them, and returns true if something was written.
        let writes = |seconds: u64, is_due: fn(&KeptOutages, Time) -> bool| {
            let before = book.kept.acquire().written.clone();
            book.write_due(at(seconds), is_due).unwrap();
            book.kept.acquire().written != before
        };
        let due = |seconds: u64| writes(seconds, KeptOutages::is_due);
        follow(outage(1, false));
        assert!(!due(20), "there is no file");
        book.kept.acquire().file = Some(file);
        assert!(due(20));
        assert!(!due(100), "nothing has changed");
        let figures = |errors| OutageRecord {
            affected: AffectedCalls {
                calls: errors,
                errors,
                by_fallback: 0,
            },
            ..outage(1, false)
        };
        follow(figures(1));
        assert!(due(100));
        follow(figures(2));
        assert!(!due(109));
        assert!(writes(109, |_, _| true), "the last write has them");
        follow(outage(1, true));
        assert!(due(109), "its end is written at once");
    }

    #[test]
    fn hlt_3_outages_that_could_not_be_written_are_written_with_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("state");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("state.json");
        let book = OutageBook::default();
        book.kept.acquire().file = Some(StateFile::open(&path).unwrap());
        book.kept.acquire().follow(vec![outage(1, true)], "now");
        std::fs::remove_dir_all(&inner).unwrap();
        let now = Time::from_millis(20_000);
        assert!(book.write_due(now, KeptOutages::is_due).is_err());
        std::fs::create_dir(&inner).unwrap();
        // Nothing has changed since the failed write.
        book.write_due(now, KeptOutages::is_due).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("500 from the dependency"), "{text}");
    }
}
