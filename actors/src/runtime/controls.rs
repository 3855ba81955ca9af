//! The operator's view of a running tree, and the record of operator commands (rule OPS-1).

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{BreakerCommand, DependencySettings, IllegalTransition};

use super::Runtime;
use crate::breaker::message::OperateBreaker;
use crate::event::EventKind;
use crate::state::counts::LatencyBuckets;
use crate::supervisor::TreeNode;

impl Runtime {
    /// Returns a dependency's current settings, or `None` if none has this name.
    #[must_use]
    pub fn settings(&self, name: &str) -> Option<Arc<DependencySettings>> {
        self.registry().get(name).map(|one| one.settings())
    }

    /// Returns the latencies of a dependency's attempts, or `None` if none has this name.
    #[must_use]
    pub fn latency(&self, name: &str) -> Option<LatencyBuckets> {
        self.registry().get(name).map(|one| one.latency())
    }

    /// Returns the whole supervision tree, or `None` if its root does not answer within `patience`,
    /// as in [`GroupRef::tree`](crate::GroupRef::tree).
    ///
    /// # Panics  Outside of a tokio runtime with time.
    pub async fn tree(&self, patience: Duration) -> Option<Vec<TreeNode>> {
        self.inner.root.tree(patience).await
    }

    /// Records an operator's action that is not a breaker command.
    ///
    /// # Source  Rule OPS-1 in docs/rules.md.
    pub fn note_operation(&self, name: &str, command: &'static str, by: &str, reason: &str) {
        let kind = EventKind::Operated {
            command,
            by: by.to_owned(),
            reason: reason.to_owned(),
            until: None,
        };
        self.inner.around.events.emit(&Arc::from(name), kind);
    }

    /// Carries out a command as [`Runtime::operate`] does, and records its author.
    ///
    /// # Errors  The breaker's state does not allow it; nothing is then recorded.
    /// # Source  Rule OPS-1 in docs/rules.md.
    pub async fn operate_by(
        &self,
        name: &str,
        command: BreakerCommand,
        by: &str,
    ) -> Option<Result<(), IllegalTransition>> {
        let note = Some(order(&command, by));
        let operate = OperateBreaker {
            note,
            ..OperateBreaker::all(command)
        };
        self.carry_out(name, operate).await
    }
}

fn order(command: &BreakerCommand, by: &str) -> EventKind {
    EventKind::Operated {
        command: command.name(),
        by: by.to_owned(),
        reason: command.reason().to_owned(),
        until: command.until(),
    }
}
