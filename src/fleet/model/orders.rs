//! Operators' commands for the whole fleet: overrides on the board, and words to all replicas.

use std::time::Duration;

use breakerbox_actors::FleetBreaker;
use breakerbox_policy::{BreakerCommand, CommandSource, Override, OverrideMode, Time};

use super::super::board_word::{
    self as word, BoardKey, BoardWord, FleetOrder, OrderCommand, ReplicaMessage, short,
};
use super::{Effect, FleetModel};
use crate::{EventKind, Runtime};

/// Difference between two ends of a span that are one.
const NEAR: Duration = Duration::from_secs(1);

/// Returns the effect of an order: the fleet's override of a breaker.
pub(super) fn set(name: &str, order: &FleetOrder, until: Option<Time>) -> Effect {
    let mode = match order.command {
        OrderCommand::Open => OverrideMode::ForcedOpen,
        OrderCommand::Disable => OverrideMode::Disabled,
        OrderCommand::Shadow => OverrideMode::Shadow,
    };
    let set = Override {
        mode,
        reason: short(&order.reason),
        by: CommandSource::Fleet,
        until,
    };
    Effect::Command(name.to_owned(), BreakerCommand::OfFleet(Some(set)))
}

/// Returns the effect of an order that was taken off.
pub(super) fn lift(name: &str) -> Effect {
    Effect::Command(name.to_owned(), BreakerCommand::OfFleet(None))
}

/// Returns true if both ends are one, as far as clocks and ways tell.
fn is_about(one: Option<Time>, other: Option<Time>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.since(other).max(other.since(one)) < NEAR,
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Returns true if both are the same command for the same reason. Their spans differ where one was said
/// again, which names the rest of its span: [`is_about`] tells whether they end together.
fn is_same(one: Option<&FleetOrder>, other: Option<&FleetOrder>) -> bool {
    let words = |order: &FleetOrder| (order.command, order.reason.clone(), order.by.clone());
    one.map(words) == other.map(words)
}

/// Returns the effect of an order that a new board does not know.
pub(super) fn say_again(now: Time, name: &str, order: FleetOrder, until: Option<Time>) -> Effect {
    let left = until.map(|until| word::millis(until.since(now)));
    let order = FleetOrder {
        for_ms: left,
        ..order
    };
    let key = BoardKey::Order(name.to_owned());
    Effect::PutFirst(key, BoardWord::Order(order))
}

/// Returns the command of a word to all replicas.
fn command_of(word: &str, reason: String) -> Option<(&'static str, BreakerCommand)> {
    match word {
        "close" => Some(("close", BreakerCommand::Close { reason })),
        "reset" => Some(("reset", BreakerCommand::Reset { reason })),
        "check" => Some(("check", BreakerCommand::Probe { reason })),
        _ => None,
    }
}

impl FleetModel {
    /// Gives an operator's command to the fleet. Returns `None` if the board is not reached.
    pub(crate) fn operate(
        &mut self,
        name: &str,
        command: &str,
        (reason, by): (String, String),
        for_: Option<Duration>,
    ) -> Option<Vec<Effect>> {
        if !self.is_connected {
            return None;
        }
        let key = BoardKey::Order(name.to_owned());
        let said = |reason| {
            Effect::Say(ReplicaMessage::Do {
                dependency: name.to_owned(),
                command: command.to_owned(),
                reason,
                by: by.clone(),
                from: word::id_text(self.me),
            })
        };
        if let Some(command) = OrderCommand::of(command) {
            let order = FleetOrder {
                command,
                reason,
                by,
                for_ms: for_.map(word::millis),
            };
            return Some(vec![Effect::Put(key, BoardWord::Order(order))]);
        }
        Some(match command {
            // FLT-12: an override stands until its end, or until it is closed.
            "close" => vec![Effect::TakeOff(key), said(reason)],
            _ => vec![said(reason)],
        })
    }

    /// Takes in an order that the board has accepted, or its end.
    pub(crate) fn ordered(
        &mut self,
        now: Time,
        name: &str,
        order: Option<FleetOrder>,
        runtime: &Runtime,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let told = (order, Duration::ZERO);
        self.heard_order(now, name, told, runtime, &mut effects);
        effects
    }

    /// An order on the board, or its end.
    pub(super) fn heard_order(
        &mut self,
        now: Time,
        name: &str,
        (order, age): (Option<FleetOrder>, Duration),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let Some(member) = self.member(now, name, runtime) else {
            return;
        };
        member.is_order_old = false;
        // FLT-10: its span is counted from when it was given.
        let left = order.as_ref().map(|order| {
            let span = order.for_ms.map(Duration::from_millis);
            span.map(|span| span.saturating_sub(age))
        });
        let has_ended = left.flatten().is_some_and(|left| left.is_zero());
        let order = order.filter(|_| !has_ended);
        let until = left.flatten().filter(|_| !has_ended);
        let until = until.map(|left| now.after(left));
        // FLT-12: the same words, given again, begin a new span.
        if is_same(member.order.as_ref(), order.as_ref()) && is_about(member.order_until, until) {
            return;
        }
        member.order.clone_from(&order);
        member.order_until = until;
        match order {
            None => effects.push(lift(name)),
            Some(order) => {
                effects.push(set(name, &order, until));
                let kind = EventKind::Operated {
                    command: order.command.as_str(),
                    by: format!("{} for the fleet", short(&order.by)),
                    reason: short(&order.reason),
                    until,
                };
                effects.push(Effect::Tell(name.to_owned(), kind));
            }
        }
    }

    /// A command for all replicas that are connected.
    pub(super) fn told_to(
        &self,
        name: &str,
        (command, reason, by): (&str, &str, &str),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let Some((told, command)) = command_of(command, short(reason)) else {
            return;
        };
        if runtime.fleet_view(FleetBreaker::of(name)).is_none() {
            return;
        }
        effects.push(Effect::Command(name.to_owned(), command));
        if matches!(told, "close" | "reset") {
            effects.push(Effect::TakenBack(name.to_owned()));
        }
        let kind = EventKind::Operated {
            command: told,
            by: format!("{} for the fleet", short(by)),
            reason: short(reason),
            until: None,
        };
        effects.push(Effect::Tell(name.to_owned(), kind));
    }
}
