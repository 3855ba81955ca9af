//! The keeper of a dependency's breakers: their changes that come with time.
//!
//! It sets the timers that the changes of the machines ask for, looks for overdue calls, and evicts
//! idle keys. It runs on the runtime's control thread, where no code of users runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Time;

use super::gate::tag_of;
use super::judgement::{change, each_breaker, recover};
use crate::clock::{earliest, random};
use crate::state::{Route, Shared};
use crate::supervisor::{ThreadHandle, caught};

/// Starts the keeper of these breakers, unless they have one.
pub(super) fn start(shared: &Arc<Shared>, control: &ThreadHandle) {
    if !shared.desk.claim_keeper() {
        return;
    }
    let kept = Arc::clone(shared);
    let started = control.spawn(move || async move {
        let mut keeper = BreakerKeeper::new(kept.clock.now());
        while kept.worker_route() != Route::Stopped {
            keeper.turn(&kept).await;
        }
    });
    if started.is_err() {
        shared.desk.disclaim_keeper();
    }
}

/// The timers and the rounds of a dependency's breakers.
struct BreakerKeeper {
    /// The deadline of each breaker that has one, by its key.
    deadlines: HashMap<Option<Arc<str>>, Time>,
    in_order: BTreeSet<(Time, Option<Arc<str>>)>,
    overdue: PeriodicRound,
    idle: PeriodicRound,
}

/// A round that is made again and again.
#[derive(Default)]
struct PeriodicRound {
    every: Option<Duration>,
    next: Option<Time>,
}

impl PeriodicRound {
    /// Begins anew if the interval has changed.
    fn set(&mut self, every: Option<Duration>, now: Time) {
        if self.every != every {
            self.every = every;
            self.next = every.map(|every| now.after(every));
        }
    }

    /// Returns true if the round is due, and sets the next one.
    fn is_due(&mut self, now: Time) -> bool {
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due {
            self.next = self.every.map(|every| now.after(every));
        }
        is_due
    }
}

impl BreakerKeeper {
    fn new(now: Time) -> Self {
        let mut keeper = Self {
            deadlines: HashMap::new(),
            in_order: BTreeSet::new(),
            overdue: PeriodicRound::default(),
            idle: PeriodicRound::default(),
        };
        keeper.overdue.set(None, now);
        keeper
    }

    /// Waits for the next thing to do, and does it.
    async fn turn(&mut self, shared: &Arc<Shared>) {
        for (key, deadline) in shared.desk.take_alarms() {
            self.set(key, deadline);
        }
        self.set_intervals(shared);
        let first = self.in_order.first().map(|(at, _)| *at);
        let next = earliest(first, earliest(self.overdue.next, self.idle.next));
        let sleep = async {
            match next {
                Some(next) => shared.clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.desk.told() => {}
            () = sleep => {
                // A crash of one machine must not end the timers of all.
                if let Err(panic) = caught(|| self.fire(shared)) {
                    tracing::error!(dependency = &*shared.name, %panic, "a breaker panicked");
                    recover(shared);
                }
            }
        }
    }

    fn set(&mut self, key: Option<Arc<str>>, deadline: Option<Time>) {
        let before = match deadline {
            Some(at) => self.deadlines.insert(key.clone(), at),
            None => self.deadlines.remove(&key),
        };
        if let Some(before) = before {
            self.in_order.remove(&(before, key.clone()));
        }
        if let Some(at) = deadline {
            self.in_order.insert((at, key));
        }
    }

    fn set_intervals(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        let tick = shared.breaker.watch.tick();
        let tick = tick.map(|tick| tick.max(Duration::from_millis(1)));
        self.overdue.set(tick, now);
        // Each key is evicted after 1 to 1.5 times its idle time.
        const OFTEN: Duration = Duration::from_secs(1);
        const SELDOM: Duration = Duration::from_secs(3600);
        let half = (shared.settings().keys.idle / 2).clamp(OFTEN, SELDOM);
        self.idle.set(Some(half), now);
    }

    fn fire(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        while let Some((at, key)) = self.in_order.first().cloned()
            && at <= now
        {
            self.set(key.clone(), None);
            // Looked up by its key, since a timer must not protect a key from eviction.
            let scope = key.as_deref().map(|key| shared.keys.find(key));
            if scope.as_ref().is_some_and(Option::is_none) {
                continue;
            }
            let scope = scope.flatten();
            let target = scope.as_deref().unwrap_or(&shared.breaker);
            change(shared, &scope, |machine, now| {
                target.disarm();
                machine.on_time(now, &mut random());
            });
        }
        if self.overdue.is_due(now) {
            each_breaker(shared, |scope| {
                let target = scope.as_deref().unwrap_or(&shared.breaker);
                change(shared, scope, |machine, now| {
                    let overdue = target.overdue(now, tag_of(machine.generation()));
                    machine.set_overdue(now, overdue, &mut random());
                });
            });
        }
        if self.idle.is_due(now) {
            shared.forget_idle_keys(now);
        }
    }
}
