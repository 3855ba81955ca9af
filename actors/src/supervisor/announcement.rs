//! Consequences of the ends of children for watchers, callers and senders.

use breakerbox_policy::supervision::ChildState;

use super::Supervisor;
use crate::event::EventKind;

impl Supervisor {
    /// Notifies the watchers of each child that has ended for good (rule SUP-5), announces the
    /// restart time of each child in backoff, and refuses the messages to those that have finished.
    ///
    /// It looks at the children that have ended only: all of them are many.
    pub(super) fn announce(&mut self) {
        let is_ending = self.machine.is_ending();
        if is_ending && !std::mem::replace(&mut self.end_told, true) {
            self.ended.extend(self.children.keys());
        }
        if self.ended.is_empty() {
            return;
        }
        let now = self.around.clock.now();
        for id in std::mem::take(&mut self.ended) {
            let Some(child) = self.machine.child(id) else {
                continue;
            };
            let Some(entry) = self.children.get_mut(&id) else {
                continue;
            };
            match child.state {
                ChildState::Stopped | ChildState::Parked => {
                    if child.state == ChildState::Stopped && entry.last_end.is_some() {
                        entry.body.hooks().stopped();
                    }
                    entry.notify_watchers(&self.around.watchers);
                    // SUP-4: after the end of this supervisor, the one above decides.
                    if child.has_finished && !is_ending {
                        entry.body.refuse();
                    }
                }
                ChildState::Waiting { until } if entry.waits_until != Some(until) => {
                    entry.waits_until = Some(until);
                    entry.body.hooks().waits(until);
                    let after = until.since(now);
                    let kind = EventKind::RestartScheduled { after };
                    self.around.events.emit(&entry.subject, kind);
                }
                // It is judged later.
                ChildState::Pending => {
                    self.ended.insert(id);
                }
                _ => {}
            }
        }
    }
}
