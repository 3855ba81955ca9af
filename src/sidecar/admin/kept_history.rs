//! The last day of each dependency beyond the process, in the section `history` of the file of
//! `admin.state` (rule HLT-3).
//!
//! Minutes of earlier processes stand before those of this one. They are written once a minute, for a
//! bounded number of dependencies. Nothing here samples or judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::AdminState;
use super::kept_buckets::KeptBuckets;
use super::series::COARSE;
use crate::sidecar::state_file::StateFileError;

/// Name of the section.
pub(super) const SECTION: &str = "history";

/// Maximum number of dependencies with a history in a file.
pub(super) const MAX_DEPENDENCIES: usize = 256;

/// Reads the section.
///
/// # Errors  It is not as this version writes it.
pub(super) fn minutes(
    section: Option<Value>,
    path: &Path,
) -> Result<BTreeMap<String, KeptBuckets>, StateFileError> {
    let Some(section) = section else {
        return Ok(BTreeMap::new());
    };
    let unreadable = |reason: String| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason: format!("its section \"{SECTION}\" cannot be used: {reason}"),
    };
    let all: BTreeMap<String, KeptBuckets> =
        serde_json::from_value(section).map_err(|error| unreadable(error.to_string()))?;
    match all.iter().find(|(_, one)| !one.is_whole(COARSE.1)) {
        Some((name, _)) => Err(unreadable(format!("the minutes of {name} are damaged"))),
        None => Ok(all),
    }
}

/// Writes the days of all dependencies into the file, if there is one.
pub(super) async fn write(inner: &Arc<AdminState>) {
    let Some(file) = inner.state_file() else {
        return;
    };
    let days = inner.history.days(inner).into_iter().take(MAX_DEPENDENCIES);
    let days = days.map(|(name, day)| (name, KeptBuckets::of(&day)));
    let all: BTreeMap<String, KeptBuckets> = days.collect();
    // A slow disk must not delay the requests of this thread.
    let written = tokio::task::spawn_blocking(move || {
        let section = serde_json::to_value(all)?;
        file.put(SECTION, section)
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "admin.state cannot be written: the history"),
        Err(ended) => tracing::error!(%ended, "admin.state cannot be written: the history"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hlt_3_damaged_minutes_are_told() {
        let damaged = serde_json::json!({"web": {"begin": "2026-01-01T00:00:00Z", "packed": "12"}});
        let refused = minutes(Some(damaged), Path::new("state.json")).unwrap_err();
        assert!(
            refused.to_string().contains("minutes of web are damaged"),
            "{refused}"
        );
    }
}
