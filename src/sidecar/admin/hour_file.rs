//! The last hour of each dependency beyond the process, in a file beside that of `admin.state` (rule
//! HLT-3).
//!
//! It is written a few times a minute, the less often the longer it is: at most 16 kB a second on
//! average. No order and no outage is in it, so a damaged one is told and passed over. Nothing here
//! samples or judges.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::AdminState;
use super::kept_buckets::KeptBuckets;
use super::kept_history::MAX_DEPENDENCIES;
use super::series::FINE;
use crate::lock::LockExt as _;
use crate::sidecar::state_file::{beside, read_text, replace};

/// Ending of its name, after that of the file of `admin.state`.
const ENDING: &str = ".hour";
/// Version of the format.
const VERSION: u32 = 1;

/// Number of samples from one write to the next: 15 s, a minute for a file of a megabyte.
const SAMPLES_A_WRITE: u64 = 3;
const MAX_SAMPLES_A_WRITE: u64 = 12;
/// One sample more for each of so many bytes that were written.
const BYTES_A_SAMPLE: u64 = 80 * 1024;

/// The file of the last hour.
#[derive(Debug)]
pub(super) struct HourFile {
    path: PathBuf,
    /// One write at a time, so that none takes the new file of another.
    turn: Mutex<()>,
    /// True from a write that failed to the next one that does not, so that each failure is told once.
    is_failing: AtomicBool,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenHours {
    breakerbox_hour: u32,
    dependencies: BTreeMap<String, KeptBuckets>,
}

impl HourFile {
    /// The file beside that of `admin.state`, which no other process uses.
    pub(super) fn beside(state: &Path) -> Self {
        Self {
            path: beside(state, ENDING),
            turn: Mutex::new(()),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Returns the hours that earlier processes have written. Those that cannot be read are told, and
    /// left out.
    pub(super) fn read(&self) -> BTreeMap<String, KeptBuckets> {
        let path = self.path.display();
        self.try_read().unwrap_or_else(|reason| {
            tracing::warn!(
                %path,
                reason,
                "the charts of the last hour cannot be read and begin anew"
            );
            BTreeMap::new()
        })
    }

    fn try_read(&self) -> Result<BTreeMap<String, KeptBuckets>, String> {
        let text = read_text(&self.path).map_err(|error| error.to_string())?;
        let Some(text) = text else {
            return Ok(BTreeMap::new());
        };
        let hours: WrittenHours =
            serde_json::from_str(&text).map_err(|error| format!("it is damaged: {error}"))?;
        let version = hours.breakerbox_hour;
        if version != VERSION {
            return Err(format!(
                "it has version {version}, and this Breakerbox knows version {VERSION}"
            ));
        }
        let mut all = hours.dependencies;
        let given = all.len();
        all.retain(|_, one| one.is_whole(FINE.1));
        if all.len() < given {
            let path = self.path.display();
            let damaged = given - all.len();
            tracing::warn!(%path, damaged, "charts of the last hour are damaged and begin anew");
        }
        Ok(all)
    }

    /// Writes the hours of all dependencies. Returns the length of the file.
    ///
    /// # Errors  The file is as it was; the reason.
    fn try_write(&self, hours: BTreeMap<String, KeptBuckets>) -> Result<u64, String> {
        let written = WrittenHours {
            breakerbox_hour: VERSION,
            dependencies: hours,
        };
        let text = serde_json::to_vec(&written).map_err(|error| error.to_string())?;
        let _one_at_a_time = self.turn.acquire();
        // Nothing waits for the disk: after the machine's own end, a damaged hour is passed over.
        replace(&self.path, &text, |_| Ok(())).map_err(|error| error.to_string())?;
        Ok(text.len() as u64)
    }

    fn tell(&self, problem: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            tracing::error!(%path, problem, "the charts of the last hour cannot be written");
        }
    }
}

/// Writes the hours of all dependencies, if there is a file for them. Returns the number of samples
/// until the next write.
pub(super) async fn write(inner: &Arc<AdminState>) -> u64 {
    let Some(file) = inner.hour_file() else {
        return SAMPLES_A_WRITE;
    };
    let hours = inner.history.hours(inner).into_iter();
    let hours = hours.take(MAX_DEPENDENCIES);
    let hours = hours.map(|(name, hour)| (name, KeptBuckets::of(&hour)));
    let hours: BTreeMap<String, KeptBuckets> = hours.collect();
    let writer = Arc::clone(&file);
    // A slow disk must not delay the requests of this thread.
    let written = tokio::task::spawn_blocking(move || writer.try_write(hours)).await;
    let problem = match written {
        Ok(Ok(bytes)) => {
            file.is_failing.store(false, Ordering::Relaxed);
            return samples_to_wait(bytes);
        }
        Ok(Err(problem)) => problem,
        Err(ended) => ended.to_string(),
    };
    file.tell(&problem);
    MAX_SAMPLES_A_WRITE
}

/// Returns the number of samples between a write of so many bytes and the next one.
fn samples_to_wait(bytes: u64) -> u64 {
    (SAMPLES_A_WRITE + bytes / BYTES_A_SAMPLE).min(MAX_SAMPLES_A_WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> BTreeMap<String, KeptBuckets> {
        let folder = tempfile::tempdir().unwrap();
        let file = HourFile::beside(&folder.path().join("state.json"));
        assert!(file.path.ends_with("state.json.hour"));
        std::fs::write(&file.path, text).unwrap();
        file.read()
    }

    #[test]
    fn hlt_3_a_damaged_hour_is_passed_over() {
        let one = "{\"begin\":\"2026-01-01T00:00:00Z\",\"packed\":\"00000000\"}";
        let whole = format!("{{\"breakerbox_hour\":1,\"dependencies\":{{\"web\":{one}}}}}");
        assert!(hours(&whole).contains_key("web"));
        for damaged in [
            "",
            "{",
            "[]",
            "\0\0",
            &whole[..40],
            &whole.replace(":1,", ":2,"),
        ] {
            assert!(hours(damaged).is_empty(), "{damaged}");
        }
        // Of a file that can be read, only those that are damaged.
        let cut = one.replace("00000000", "0000");
        let other = format!("{{\"web\":{one},\"other\":{cut}}}");
        let kept = hours(&format!(
            "{{\"breakerbox_hour\":1,\"dependencies\":{other}}}"
        ));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn hlt_3_an_hour_is_written_over_the_old_one_and_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = HourFile::beside(&folder.path().join("state.json"));
        assert!(file.read().is_empty());
        for _ in 0..2 {
            assert!(file.try_write(BTreeMap::new()).unwrap() < 100);
        }
        assert!(file.read().is_empty());
        assert_eq!(samples_to_wait(100), 3);
        assert_eq!(samples_to_wait(256 * 6_000), 12);
    }
}
