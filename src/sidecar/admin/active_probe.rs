//! The active probes of a dependency as JSON; the field names are a contract.

use serde::Serialize;

use super::AdminState;
use crate::{ActiveProbeResult, ActiveProbeStatus};
use breakerbox_actors::redact;

/// The requests of our own that ask whether a dependency is well.
#[derive(Debug, Serialize)]
pub(super) struct ActiveProbeView {
    request: String,
    every_ms: u64,
    counted: u64,
    failed: u64,
    last: Option<LastProbeView>,
}

#[derive(Debug, Serialize)]
struct LastProbeView {
    at: String,
    result: &'static str,
    text: String,
}

pub(super) fn view(inner: &AdminState, probes: ActiveProbeStatus) -> ActiveProbeView {
    let last = probes.last.map(|(at, result, text)| LastProbeView {
        at: inner.stamps.of(at),
        result: match result {
            ActiveProbeResult::Succeeded => "succeeded",
            ActiveProbeResult::Failed => "failed",
            _ => "not_counted",
        },
        text: redact(&text).into_owned(),
    });
    ActiveProbeView {
        request: redact(&probes.request).into_owned(),
        every_ms: u64::try_from(probes.every.as_millis()).unwrap_or(u64::MAX),
        counted: probes.counted,
        failed: probes.failed,
        last,
    }
}
