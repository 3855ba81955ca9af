//! The notes of operators beyond the process, in the section `notes` of the file of `admin.state` (rule
//! HLT-3).

use std::collections::VecDeque;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sidecar::state_file::StateFileError;

/// Name of the section.
pub(super) const SECTION: &str = "notes";

/// A note, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OperatorNote {
    pub(super) id: u64,
    pub(super) at: Timestamp,
    /// Without what looks like a secret.
    pub(super) text: String,
    pub(super) dependency: Option<String>,
    pub(super) by: String,
}

/// Reads the section.
///
/// # Errors  It is not as this version writes it.
pub(super) fn records(
    section: Option<Value>,
    path: &Path,
) -> Result<VecDeque<OperatorNote>, StateFileError> {
    let Some(section) = section else {
        return Ok(VecDeque::new());
    };
    serde_json::from_value(section).map_err(|error| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason: format!("its section \"{SECTION}\" cannot be used: {error}"),
    })
}
