//! Levels of a server's log messages, from the lowest.

/// The levels by name.
pub(crate) const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// Returns the rank of a level.
pub(crate) fn rank(level: &str) -> Option<usize> {
    LEVELS.iter().position(|one| *one == level)
}
