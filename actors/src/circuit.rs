//! One breaker as everyone around it sees it: its gate, its machine, and what it counts by.
//!
//! A dependency has one, and one more for each key of its requests where they have any. The
//! breaker actor alone changes the machine.

mod keyring;

mod shard;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breakerbox_policy::{BreakerSettings, Command, Override, State, Time};
use thread_local::ThreadLocal;

pub(crate) use keyring::Keyring;

use crate::clock::random;
use crate::flight::Watch;
use crate::gate::Gate;
use crate::notice::{Board, Notice, SharedNotice};
use shard::Shard;

/// A breaker's shared side.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// Whose it is: `None` for the dependency as a whole.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) gate: Gate,
    /// The kernel's breaker. It is here so that a restarted actor does not forget that the
    /// dependency is sick (rule BRK-12).
    pub(crate) machine: Mutex<breakerbox_policy::Breaker>,
    /// Why it is in its state, in words; renewed at each transition.
    notice: Board,
    /// How calls in flight are watched.
    pub(crate) watch: Watch,
    /// What each thread has counted.
    shards: ThreadLocal<Box<Shard>>,
    /// From how many nanoseconds on a call is slow; `u64::MAX` when none is.
    slow_nanos: AtomicU64,
    /// Width of a time bucket of the window, in nanoseconds; 0 when it has none.
    bucket_nanos: AtomicU64,
    /// When it was last asked for, or heard of, in nanoseconds.
    used: AtomicU64,
    /// Whether what lies over a key's breaker is only what lies over the whole dependency.
    follows: AtomicBool,
}

impl Circuit {
    pub(crate) fn new(
        dependency: Arc<str>,
        key: Option<Arc<str>>,
        settings: &BreakerSettings,
        now: Time,
    ) -> Self {
        let machine = breakerbox_policy::Breaker::new(settings.clone(), now);
        let notice = Board::new(Notice {
            dependency,
            key: key.clone(),
            reason: "started".to_owned(),
        });
        let circuit = Self {
            key,
            gate: Gate::new(crate::breaker::word_of(&machine, now)),
            notice,
            watch: Watch::default(),
            shards: ThreadLocal::new(),
            slow_nanos: AtomicU64::new(u64::MAX),
            bucket_nanos: AtomicU64::new(0),
            used: AtomicU64::new(now.as_nanos()),
            follows: AtomicBool::new(false),
            machine: Mutex::new(machine),
        };
        circuit.measure_by(&circuit.lock());
        circuit
    }

    /// Takes over what the machine's settings say about measuring.
    pub(crate) fn measure_by(&self, machine: &breakerbox_policy::Breaker) {
        let settings = machine.settings();
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let slow = settings.slow_call.map_or(u64::MAX, nanos);
        self.slow_nanos.store(slow, Ordering::Relaxed);
        let bucket = machine.success_bucket().map_or(0, nanos);
        self.bucket_nanos.store(bucket, Ordering::Relaxed);
        self.watch.set(settings.slow_rate.and(settings.slow_call));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, breakerbox_policy::Breaker> {
        // A poisoned machine is one whose actor crashed; the next life puts it in order.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_slow(&self, elapsed: Duration) -> bool {
        elapsed.as_nanos() >= u128::from(self.slow_nanos.load(Ordering::Relaxed))
    }

    /// The number of the window's time bucket for successes, 0 when it has none.
    fn bucket(&self, now: Time) -> u64 {
        match self.bucket_nanos() {
            0 => 0,
            width => now.as_nanos() / width,
        }
    }

    pub(crate) fn bucket_nanos(&self) -> u64 {
        self.bucket_nanos.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn notice(&self) -> SharedNotice {
        self.notice.read()
    }

    pub(crate) fn set_notice(&self, reason: String) {
        self.notice.renew(reason);
    }

    /// Notes that its key is in use.
    pub(crate) fn use_now(&self, now: Time) {
        self.used.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    fn used(&self) -> Time {
        Time::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Whether what lies over it was handed down from the dependency.
    pub(crate) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }

    /// From here on whatever lies over it is its own.
    pub(crate) fn stand_alone(&self) {
        self.follows.store(false, Ordering::Relaxed);
    }

    /// Puts the dependency's shadow over a key's breaker, or takes it off again; what was set on
    /// the key itself stays.
    pub(crate) fn follow(
        &self,
        machine: &mut breakerbox_policy::Breaker,
        shadow: Option<&Override>,
        now: Time,
    ) {
        if machine.overridden().is_some() && !self.follows() {
            return;
        }
        let command = match shadow {
            Some(shadow) => Command::Shadow {
                reason: shadow.reason.clone(),
                until: shadow.until,
            },
            None if machine.overridden().is_some() => Command::Clear,
            None => return,
        };
        self.follows.store(true, Ordering::Relaxed);
        // Neither of them depends on the state.
        let _ = machine.command(now, command, &mut random());
    }

    /// Whether nothing is lost when it is forgotten: nobody set it, and it is not refusing.
    fn is_forgettable(&self, now: Time) -> bool {
        let machine = self.lock();
        let refuses = machine.state() == State::Open && {
            let wait = machine.view(now).retry_after;
            wait.is_none_or(|wait| !wait.is_zero())
        };
        !refuses && (machine.overridden().is_none() || self.follows())
    }
}
