//! Orders of operators that hold for every start of a dependency (rule HLT-3).
//!
//! A program that remembers them in a file hands them over before it starts its dependencies. This
//! module writes and reads no file.

use breakerbox_policy::{BreakerCommand, OverrideMode, Time};

use super::Runtime;
use crate::breaker::judgement::{configure_override, operate};
use crate::breaker::message::OperateBreaker;
use crate::event::EventKind;
use crate::state::Shared;
use crate::sync::LockExt;

/// An override that an operator set and did not take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingOrder {
    /// Its effect.
    pub mode: OverrideMode,
    /// Reason for it.
    pub reason: String,
    /// Its author.
    pub by: String,
    /// Time at which it ends; `None` for never.
    pub until: Option<Time>,
}

impl StandingOrder {
    fn command(&self) -> BreakerCommand {
        let (reason, until) = (self.reason.clone(), self.until);
        match self.mode {
            OverrideMode::ForcedOpen => BreakerCommand::Open { reason, until },
            OverrideMode::Disabled => BreakerCommand::Disable { reason, until },
            OverrideMode::Shadow => BreakerCommand::Shadow { reason, until },
        }
    }

    fn has_ended(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Runtime {
    /// Lets a dependency of this name begin under an operator's order whenever one is started: its
    /// first call finds the override set. `None` takes the order back. A dependency that runs stays
    /// as it is.
    ///
    /// # Source  Rule HLT-3 in docs/rules.md.
    pub fn set_standing_order(&self, name: &str, order: Option<StandingOrder>) {
        let mut orders = self.inner.standing_orders.acquire();
        match order {
            Some(order) => drop(orders.insert(name.to_owned(), order)),
            None => drop(orders.remove(name)),
        }
    }

    /// Sets the overrides under which a dependency begins. No caller can reach it yet.
    pub(super) fn begin_overridden(&self, shared: &Shared) {
        let set = shared.settings().configured_override.clone();
        if set.is_some() {
            configure_override(shared, set);
        }
        let order = self
            .inner
            .standing_orders
            .acquire()
            .get(&*shared.name)
            .cloned();
        let Some(order) = order.filter(|order| !order.has_ended(shared.clock.now())) else {
            return;
        };
        let command = order.command();
        let note = EventKind::OrderRestored {
            command: command.name(),
            by: order.by,
            reason: order.reason,
            until: order.until,
        };
        // HLT-3: it holds before the first call, and is told like one that was just given.
        let operate_by = OperateBreaker {
            note: Some(note),
            ..OperateBreaker::all(command)
        };
        // An override is never refused.
        let _ = operate(shared, operate_by);
    }
}
