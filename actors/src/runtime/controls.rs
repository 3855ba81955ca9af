//! What somebody at the controls sees of a running tree, and how an order of theirs is kept on
//! record (rule OPS-1).

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Command, DependencySettings, IllegalTransition};

use super::Runtime;
use crate::counts::LatencyBuckets;
use crate::event::EventKind;
use crate::supervisor::TreeNode;

impl Runtime {
    /// The settings by which a dependency goes now; `None` when there is none of this name.
    #[must_use]
    pub fn settings(&self, name: &str) -> Option<Arc<DependencySettings>> {
        self.registry().get(name).map(|one| one.settings())
    }

    /// How long a dependency's attempts took; `None` when there is none of this name.
    #[must_use]
    pub fn latency(&self, name: &str) -> Option<LatencyBuckets> {
        self.registry().get(name).map(|one| one.latency())
    }

    /// The whole supervision tree; `None` where its root does not answer within `patience`, as
    /// [`GroupRef::tree`](crate::GroupRef::tree) says.
    ///
    /// # Panics  Outside of a tokio runtime with time.
    pub async fn tree(&self, patience: Duration) -> Option<Vec<TreeNode>> {
        self.inner.root.tree(patience).await
    }

    /// Keeps on record what somebody did at the controls that is no command to a breaker.
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

    /// Carries out a command as [`Runtime::operate`] does, and keeps on record who gave it.
    ///
    /// # Errors  The breaker's state does not allow it; then nothing is recorded.
    /// # Source  Rule OPS-1 in docs/rules.md.
    pub async fn operate_by(
        &self,
        name: &str,
        command: Command,
        by: &str,
    ) -> Option<Result<(), IllegalTransition>> {
        let kind = order(&command, by);
        let done = self.operate(name, command).await?;
        if done.is_ok() {
            self.inner.around.events.emit(&Arc::from(name), kind);
        }
        Some(done)
    }
}

fn order(command: &Command, by: &str) -> EventKind {
    let (name, reason, until) = match command {
        Command::Open { reason, until } => ("open", &**reason, *until),
        Command::Disable { reason, until } => ("disable", &**reason, *until),
        Command::Shadow { reason, until } => ("shadow", &**reason, *until),
        Command::Clear => ("clear", "", None),
        Command::Close { reason } => ("close", &**reason, None),
        Command::Reset { reason } => ("reset", &**reason, None),
        Command::Park { reason } => ("park", &**reason, None),
        Command::Unpark => ("unpark", "", None),
        Command::Trip { reason, .. } => ("trip", &**reason, None),
        Command::Probe { reason } => ("probe", &**reason, None),
    };
    EventKind::Operated {
        command: name,
        by: by.to_owned(),
        reason: reason.to_owned(),
        until,
    }
}
