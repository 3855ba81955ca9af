//! The watch over a breaker's mailbox: it ends the calls that their own thread, being blocked, has
//! not ended by their deadlines.
//!
//! It runs on the runtime's control thread, where no code of users runs, and only while a call has
//! a deadline. It never ends a call that its own thread can end: that one has a moment more.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::mailbox::CallMailbox;
use crate::dependency::Dependency;

/// Time beyond its deadline in which a call's own thread may still end it, with what a fallback has
/// at once.
const MOMENT: Duration = Duration::from_millis(10);

/// Ends overdue calls for as long as there are calls with a deadline.
pub(super) async fn watch<D: Dependency>(mailbox: Arc<CallMailbox<D>>) {
    let clock = mailbox.shared.clock.clone();
    loop {
        // CALL-9: a call ends by its deadline, even while the thread of its breaker actor is
        // blocked.
        let Some(next) = mailbox.end_overdue(MOMENT) else {
            return;
        };
        tokio::select! {
            () = clock.sleep_until(next.after(MOMENT)) => {}
            () = mailbox.earlier.notified() => {}
        }
    }
}
