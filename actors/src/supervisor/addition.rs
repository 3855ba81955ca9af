//! Starts of children that their requester gives up: each is taken back, and its name is free.

use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Context, Handler, Message};
use breakerbox_policy::supervision::{CommandId, StopCause, SupervisorEvent};

use super::{Supervisor, Terminated};

/// The number of a request to add a child, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AdditionNumber(u64);

impl AdditionNumber {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Takes a request to add a child back, at any time.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct WithdrawAddition(pub(super) AdditionNumber);

impl Handler<WithdrawAddition> for Supervisor {
    type Result = ();

    fn handle(&mut self, withdraw: WithdrawAddition, ctx: &mut Context<Self>) {
        let WithdrawAddition(number) = withdraw;
        if let Some(at) = self.arriving.iter().position(|one| one.number == number) {
            let arrival = self.arriving.remove(at);
            self.machine.withdraw(arrival.ticket);
            self.tickets.remove(&arrival.ticket);
            return;
        }
        let Some(id) = self.added.remove(&number) else {
            return;
        };
        let Some(name) = self.machine.child(id).map(|child| child.name.to_owned()) else {
            return;
        };
        // SUP-1: a start that was given up is rolled back. Its name is free at once, although its
        // end may take a while.
        let AdditionNumber(number) = number;
        let leaving = format!("{name}[given up {number}]");
        if self.rename(&name, &leaving).is_err() {
            return;
        }
        if let Some(entry) = self.children.get(&id) {
            let notice = Terminated {
                name: entry.watched_as.to_string(),
                incarnation: 0,
                cause: StopCause::Shutdown,
            };
            self.around.watchers.tell(&entry.body, notice);
        }
        let ticket = self.unheard_ticket();
        let child = leaving.clone();
        self.on(SupervisorEvent::Terminate { child, ticket }, ctx);
        let ticket = self.unheard_ticket();
        let child = leaving;
        self.on(SupervisorEvent::Delete { child, ticket }, ctx);
    }
}

impl Supervisor {
    /// Returns the id of a command without a requester.
    fn unheard_ticket(&mut self) -> CommandId {
        self.last_ticket += 1;
        CommandId(self.last_ticket)
    }
}
