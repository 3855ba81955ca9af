//! The section `recorder`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::section::Section;
use super::value_type::{bytes, count, path};

/// The recorder: a file of all outcomes, for `breakerbox replay`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderConfig {
    /// The file; `None` to record nothing.
    pub path: Option<PathBuf>,
    /// Maximum number of records waiting to be written; further ones are dropped and counted.
    pub max_queue: NonZeroU32,
    /// Maximum size of the file. At that size it is renamed to `<path>.1`, and a new one is
    /// created.
    ///
    /// # Units   Bytes.
    pub max_bytes: u64,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            path: None,
            max_queue: NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN),
            max_bytes: 64_000_000,
        }
    }
}

/// Reads `recorder`.
pub(super) fn read(mut section: Section<'_>) -> RecorderConfig {
    let default = RecorderConfig::default();
    let path = path("the path of a file", |path| !path.is_empty());
    let most = bytes("\"64MB\", from 1MB to 1TB", 1_000_000..=1_000_000_000_000);
    let settings = RecorderConfig {
        path: section.get_if_set("path", &path).map(PathBuf::from),
        max_queue: section.get_or("max_queue", &count(10_000_000), default.max_queue),
        max_bytes: section.get_or("max_bytes", &most, default.max_bytes),
    };
    if settings.path.is_none() {
        // A file that names each default says nothing.
        let is_set = [
            ("max_bytes", settings.max_bytes != default.max_bytes),
            ("max_queue", settings.max_queue != default.max_queue),
        ];
        for (key, _) in is_set.iter().filter(|(_, is_set)| *is_set) {
            let text = "it has no effect without recorder.path: nothing is recorded";
            section.warn(key, text.to_owned());
        }
    }
    section.finish();
    settings
}
