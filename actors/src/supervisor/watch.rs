//! Death watch: each watcher of a child is notified once, with the true cause, when the child is
//! gone for good.
//!
//! A restart is no death. The notice is sent after every part of the child has been dropped.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use super::child::ChildBody;
use crate::sync::LockExt;
use breakerbox_policy::supervision::StopCause;
use tokio::sync::oneshot;

/// Notice that a child ended and will not be started again.
///
/// # Source  Rule SUP-5 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
pub struct Terminated {
    /// The child's name, after the names of its supervisors.
    pub name: String,
    /// Number of its last incarnation; 0 if it was never started.
    pub incarnation: u64,
    /// Cause of its end.
    pub cause: StopCause,
}

/// Resolves when the watched child is gone for good. Dropping it ends the watch.
///
/// # Cancel safety   Nothing is lost by polling it later.
#[derive(Debug)]
pub struct DeathWatch {
    name: String,
    notice: oneshot::Receiver<Terminated>,
}

impl Future for DeathWatch {
    type Output = Terminated;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Terminated> {
        Pin::new(&mut self.notice).poll(cx).map(|notice| {
            notice.unwrap_or_else(|_runtime_gone| Terminated {
                name: std::mem::take(&mut self.name),
                incarnation: 0,
                cause: StopCause::Lost,
            })
        })
    }
}

/// Maximum number of notices kept for late watchers (rule CALL-6).
const KEPT: usize = 1024;

/// The watchers of all children. Unbounded on purpose: no notice may be evicted by others.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<WatchTable>>);

/// A child, told apart by its body from another one of its name.
type WatchedChild = Weak<dyn ChildBody>;

#[derive(Default)]
struct WatchTable {
    /// The children that live, by name. A dependency that takes the place of another one lives beside
    /// it for a while, with the same names.
    alive: HashMap<String, Vec<WatchedChild>>,
    waiting: HashMap<String, Vec<oneshot::Sender<Terminated>>>,
    /// The latest notice of each dead child, for late watchers.
    dead: HashMap<String, Terminated>,
    /// The names of the dead children, the oldest first.
    dead_since: VecDeque<String>,
}

impl WatchTable {
    fn keep_notice(&mut self, name: &str, notice: Terminated) {
        if self.dead.insert(name.to_owned(), notice).is_some() {
            return;
        }
        self.dead_since.push_back(name.to_owned());
        if self.dead_since.len() > KEPT
            && let Some(oldest) = self.dead_since.pop_front()
        {
            self.dead.remove(&oldest);
        }
    }

    fn forget_notice(&mut self, name: &str) {
        if self.dead.remove(name).is_some() {
            self.dead_since.retain(|one| one != name);
        }
    }
}

impl Watchers {
    /// Watches a child. The watch of a child that is dead or was never started resolves at once. If
    /// the notice of a dead child is not kept any more, its cause is `Lost`.
    pub(crate) fn watch(&self, name: &str) -> DeathWatch {
        let (sender, notice) = oneshot::channel();
        let mut inner = self.lock();
        if inner.alive.contains_key(name) {
            let waiting = inner.waiting.entry(name.to_owned()).or_default();
            waiting.retain(|watcher| !watcher.is_closed());
            waiting.push(sender);
        } else {
            let never_lived = || Terminated {
                name: name.to_owned(),
                incarnation: 0,
                cause: StopCause::Lost,
            };
            let dead = inner.dead.get(name).cloned().unwrap_or_else(never_lived);
            // The receiver is in scope, so the send succeeds.
            let _ = sender.send(dead);
        }
        DeathWatch {
            name: name.to_owned(),
            notice,
        }
    }

    /// Notifies all watchers of a child, once: not while another child lives under its name, nor if it
    /// was told before.
    pub(crate) fn tell(&self, child: &Arc<dyn ChildBody>, notice: Terminated) {
        let mut inner = self.lock();
        let Some(alive) = inner.alive.get_mut(&notice.name) else {
            return;
        };
        let Some(place) = place_of(alive, child) else {
            return;
        };
        alive.swap_remove(place);
        // Some went with their supervisor, which has told nothing of them.
        alive.retain(|one| one.strong_count() > 0);
        if !alive.is_empty() {
            // SUP-5: its successor lives on, and this end is not that of the successor.
            return;
        }
        let name = notice.name.clone();
        inner.alive.remove(&name);
        for watcher in inner.waiting.remove(&name).into_iter().flatten() {
            // A watcher that was dropped needs no notice.
            let _ = watcher.send(notice.clone());
        }
        inner.keep_notice(&name, notice);
    }

    /// Marks the child as alive, also after a death.
    pub(crate) fn mark_alive(&self, name: &str, child: &Arc<dyn ChildBody>) {
        let mut inner = self.lock();
        inner.forget_notice(name);
        let own = || Arc::downgrade(child);
        match inner.alive.get_mut(name) {
            Some(alive) if place_of(alive, child).is_some() => {}
            Some(alive) => alive.push(own()),
            None => drop(inner.alive.insert(name.to_owned(), vec![own()])),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WatchTable> {
        self.0.acquire()
    }
}

fn place_of(alive: &[WatchedChild], child: &Arc<dyn ChildBody>) -> Option<usize> {
    let own = Arc::as_ptr(child);
    alive
        .iter()
        .position(|one| std::ptr::addr_eq(one.as_ptr(), own))
}

#[cfg(test)]
mod tests {
    use actix::Addr;
    use futures_channel::mpsc;

    use super::*;
    use crate::supervisor::health::ConditionWord;
    use crate::supervisor::{DriverCommand, Supervisor, Tell, Threads};

    fn notice(name: &str) -> Terminated {
        Terminated {
            name: name.to_owned(),
            incarnation: 1,
            cause: StopCause::Normal,
        }
    }

    /// A child that does nothing.
    #[derive(Default)]
    struct Idle(ConditionWord);

    impl ChildBody for Idle {
        fn spawn(
            &self,
            _: &Threads,
            _: mpsc::UnboundedReceiver<DriverCommand>,
            _: Tell,
        ) -> Result<(), String> {
            Ok(())
        }

        fn health(&self) -> &ConditionWord {
            &self.0
        }

        fn abandon(&self, _: &Threads) {}

        fn refuse(&self) {}

        fn supervisor(&self) -> Option<Addr<Supervisor>> {
            None
        }
    }

    fn child() -> Arc<dyn ChildBody> {
        Arc::new(Idle::default())
    }

    #[tokio::test]
    async fn sup_5_the_end_of_a_former_child_is_not_told_of_the_one_in_its_place() {
        let watchers = Watchers::default();
        let (first, second, lost) = (child(), child(), child());
        watchers.mark_alive("d/worker-1", &lost);
        drop(lost);
        watchers.mark_alive("d/worker-1", &first);
        let mut watch = watchers.watch("d/worker-1");
        watchers.mark_alive("d/worker-1", &second);
        watchers.tell(&first, notice("d/worker-1"));
        assert!(futures_util::poll!(&mut watch).is_pending(), "it lives on");
        // It is told once, and an end that was told before changes nothing.
        watchers.tell(&first, notice("d/worker-1"));
        assert!(futures_util::poll!(&mut watch).is_pending());
        let cause = StopCause::Killed;
        let last = Terminated {
            cause,
            ..notice("d/worker-1")
        };
        watchers.tell(&second, last.clone());
        assert_eq!(watch.await, last);
        watchers.tell(&first, notice("d/worker-1"));
        assert_eq!(watchers.watch("d/worker-1").await, last);
    }

    #[tokio::test]
    async fn call_6_last_notices_are_kept_for_the_latest_only() {
        let (watchers, first) = (Watchers::default(), child());
        for number in 0..=KEPT {
            let name = format!("agent-{number}");
            watchers.mark_alive(&name, &first);
            watchers.tell(&first, notice(&name));
            // A second death takes no second entry.
            watchers.mark_alive(&name, &first);
            watchers.tell(&first, notice(&name));
        }
        let kept = {
            let inner = watchers.lock();
            (inner.dead.len(), inner.dead_since.len())
        };
        assert_eq!(kept, (KEPT, KEPT));
        assert_eq!(watchers.watch("agent-0").await.cause, StopCause::Lost);
        assert_eq!(watchers.watch("agent-1").await.cause, StopCause::Normal);
    }
}
