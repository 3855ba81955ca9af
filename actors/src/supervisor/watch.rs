//! Death watch: whoever watches a child is told once, truthfully, when it is gone for good.
//!
//! A restart is no death. The notice is sent after everything of the child has been dropped.

use std::collections::{HashMap, HashSet};
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

/// Who watches whom. Unbounded on purpose: a notice must not be pushed out by others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    alive: HashSet<String>,
    waiting: HashMap<String, Vec<oneshot::Sender<Terminated>>>,
    /// The latest notice of each child that is gone and may still be asked for.
    dead: HashMap<String, Terminated>,
}

impl Watchers {
    /// Watches a child; one that is gone already, or never was, answers at once.
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
        inner.dead.insert(name.to_owned(), notice);
    }

    /// The child lives, or lives again.
    pub(crate) fn greet(&self, name: &str) {
        let mut inner = self.lock();
        inner.dead.remove(name);
        if !inner.alive.contains(name) {
            inner.alive.insert(name.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
