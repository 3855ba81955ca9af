//! Counters of the exports to a collector.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of spans and metric reports, by result.
#[derive(Debug, Default)]
pub(crate) struct ExportCounts {
    /// Spans not sent yet.
    pub(super) waiting: AtomicUsize,
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) reported: AtomicU64,
    pub(super) unreported: AtomicU64,
}

impl ExportCounts {
    /// Number of spans by result.
    pub(crate) fn spans(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("sent", read(&self.sent)),
            ("dropped", read(&self.dropped)),
            ("failed", read(&self.failed)),
        ]
    }

    /// Number of metric reports by result.
    pub(crate) fn reports(&self) -> [(&'static str, u64); 2] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("sent", read(&self.reported)),
            ("failed", read(&self.unreported)),
        ]
    }
}
