//! Probes that a program makes by itself, beside the calls (rule BRK-13).

use std::sync::Arc;

use super::Client;
use crate::breaker::active_probe::{ActiveProbe, ActiveProbeStatus};
use crate::dependency::Dependency;

impl<D: Dependency> Client<D> {
    /// Asks the breaker for the permit of a probe that the program makes by itself. Returns `None`
    /// while the breaker is open or overridden, or if a half-open one has no free probe.
    ///
    /// # Source  Rule BRK-13 in docs/rules.md.
    pub fn begin_active_probe(&self) -> Option<ActiveProbe> {
        ActiveProbe::begin(&self.core.shared)
    }

    /// Sets the probes that [`Client::status`] shows; `None` if the program makes none any more.
    pub fn show_active_probes(&self, probes: Option<ActiveProbeStatus>) {
        self.core.shared.active_probes.store(probes.map(Arc::new));
    }
}
