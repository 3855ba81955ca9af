//! Death watch: whoever watches a child is told once, truthfully, when it is gone for good.
//!
//! A restart is no death. The notice is sent after everything of the child has been dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use breakerbox_policy::supervision::StopCause;
use tokio::sync::oneshot;

/// A child ended and will not be started again.
///
/// # Source  Rule SUP-5 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
pub struct Terminated {
    /// The child, with the names of its supervisors in front.
    pub name: String,
    /// Which of its lives was the last; 0 when it never lived.
    pub incarnation: u64,
    /// Why it ended.
    pub cause: StopCause,
}

/// Resolves when the watched child is gone for good. Dropping it ends the watch.
///
/// # Cancel safety   Nothing is lost by polling it later.
#[derive(Debug)]
pub struct Watch {
    name: String,
    notice: oneshot::Receiver<Terminated>,
}

impl Future for Watch {
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

/// Last notices that are kept for whoever asks late (rule CALL-6).
const KEPT: usize = 1024;

/// Who watches whom. Unbounded on purpose: a notice must not be pushed out by others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    alive: HashSet<String>,
    waiting: HashMap<String, Vec<oneshot::Sender<Terminated>>>,
    /// The latest notice of each child that is gone and may still be asked for.
    dead: HashMap<String, Terminated>,
    /// Their names, the oldest first.
    dead_since: VecDeque<String>,
}

impl Inner {
    fn bury(&mut self, name: &str, notice: Terminated) {
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

    fn exhume(&mut self, name: &str) {
        if self.dead.remove(name).is_some() {
            self.dead_since.retain(|one| one != name);
        }
    }
}

impl Watchers {
    /// Watches a child; one that is gone already, or never was, answers at once. So does one that
    /// is gone for so long that its notice is not kept any more: as lost.
    pub(crate) fn watch(&self, name: &str) -> Watch {
        let (sender, notice) = oneshot::channel();
        let mut inner = self.lock();
        if inner.alive.contains(name) {
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
            // The receiver is right here.
            let _ = sender.send(dead);
        }
        Watch {
            name: name.to_owned(),
            notice,
        }
    }

    /// Tells everyone who watches, once.
    pub(crate) fn tell(&self, name: &str, notice: Terminated) {
        let mut inner = self.lock();
        inner.alive.remove(name);
        for watcher in inner.waiting.remove(name).into_iter().flatten() {
            // Who does not wait any more need not know.
            let _ = watcher.send(notice.clone());
        }
        inner.bury(name, notice);
    }

    /// The child lives, or lives again.
    pub(crate) fn greet(&self, name: &str) {
        let mut inner = self.lock();
        inner.exhume(name);
        if !inner.alive.contains(name) {
            inner.alive.insert(name.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(name: &str) -> Terminated {
        Terminated {
            name: name.to_owned(),
            incarnation: 1,
            cause: StopCause::Normal,
        }
    }

    #[tokio::test]
    async fn call_6_last_notices_are_kept_for_the_latest_only() {
        let watchers = Watchers::default();
        for number in 0..=KEPT {
            let name = format!("agent-{number}");
            watchers.greet(&name);
            watchers.tell(&name, notice(&name));
            // Dying again takes no second place.
            watchers.greet(&name);
            watchers.tell(&name, notice(&name));
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
