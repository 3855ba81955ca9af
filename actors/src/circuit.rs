//! One breaker as everyone around it sees it: its gate, its machine, and what it counts by.
//!
//! A dependency has one, and one more for each key of its requests where they have any. The
//! breaker actor alone changes the machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::{BreakerSettings, KeySettings, State, Time};

use crate::error::Notice;
use crate::flight::InFlight;
use crate::gate::Gate;

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
    notice: ArcSwap<Notice>,
    pub(crate) in_flight: InFlight,
    /// From how many nanoseconds on a call is slow; `u64::MAX` when none is.
    slow_nanos: AtomicU64,
    /// Width of a time bucket of the window, in nanoseconds; 0 when it has none.
    bucket_nanos: AtomicU64,
    /// When it was last asked for, in nanoseconds.
    used: AtomicU64,
}

impl Circuit {
    pub(crate) fn new(
        dependency: Arc<str>,
        key: Option<Arc<str>>,
        settings: &BreakerSettings,
        now: Time,
    ) -> Self {
        let machine = breakerbox_policy::Breaker::new(settings.clone(), now);
        let notice = Notice::new(dependency, key.clone(), "started".to_owned());
        let circuit = Self {
            key,
            gate: Gate::new(crate::breaker::word_of(&machine, now)),
            notice: ArcSwap::from_pointee(notice),
            in_flight: InFlight::new(),
            slow_nanos: AtomicU64::new(u64::MAX),
            bucket_nanos: AtomicU64::new(0),
            used: AtomicU64::new(now.as_nanos()),
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
        self.in_flight
            .watch(settings.slow_rate.and(settings.slow_call));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, breakerbox_policy::Breaker> {
        // A poisoned machine is one whose actor crashed; the next life puts it in order.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_slow(&self, elapsed: Duration) -> bool {
        elapsed.as_nanos() >= u128::from(self.slow_nanos.load(Ordering::Relaxed))
    }

    /// The number of the window's time bucket for successes, 0 when it has none.
    pub(crate) fn bucket(&self, now: Time) -> u64 {
        match self.bucket_nanos() {
            0 => 0,
            width => now.as_nanos() / width,
        }
    }

    pub(crate) fn bucket_nanos(&self) -> u64 {
        self.bucket_nanos.load(Ordering::Relaxed)
    }

    pub(crate) fn notice(&self) -> Arc<Notice> {
        Arc::clone(&self.notice.load())
    }

    pub(crate) fn set_notice(&self, reason: String) {
        let old = self.notice();
        let notice = Notice::new(Arc::clone(&old.dependency), self.key.clone(), reason);
        self.notice.store(Arc::new(notice));
    }

    fn use_now(&self, now: Time) {
        self.used.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn idle_for(&self, now: Time) -> Duration {
        now.since(Time::from_nanos(self.used.load(Ordering::Relaxed)))
    }

    /// Whether nothing is lost when it is forgotten: nobody set it, and it is not refusing.
    fn is_forgettable(&self, now: Time) -> bool {
        let machine = self.lock();
        let refuses = machine.state() != State::Closed
            && machine
                .view(now)
                .retry_after
                .is_none_or(|wait| !wait.is_zero());
        machine.overridden().is_none() && !refuses
    }
}

/// The breakers of a dependency's keys.
///
/// A key is kept while it is used, refuses, or has calls in flight: those hold its circuit, and
/// so does every message on its way to the breaker actor.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    circuits: RwLock<HashMap<Arc<str>, Arc<Circuit>>>,
}

impl Keyring {
    /// The circuit of this key; `None` when there is no room for another one.
    pub(crate) fn get(
        &self,
        key: &str,
        settings: &KeySettings,
        now: Time,
        make: impl FnOnce(Arc<str>) -> Circuit,
    ) -> Option<Arc<Circuit>> {
        if let Some(circuit) = self.find(key) {
            circuit.use_now(now);
            return Some(circuit);
        }
        let mut circuits = self
            .circuits
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(circuit) = circuits.get(key) {
            circuit.use_now(now);
            return Some(Arc::clone(circuit));
        }
        let most = usize::try_from(settings.max_entries.get()).unwrap_or(usize::MAX);
        if circuits.len() >= most {
            make_room(&mut circuits, settings, now);
        }
        if circuits.len() >= most {
            return None;
        }
        let key: Arc<str> = Arc::from(key);
        let circuit = Arc::new(make(Arc::clone(&key)));
        circuits.insert(key, Arc::clone(&circuit));
        Some(circuit)
    }

    /// The circuit of this key, where it is known.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<Circuit>> {
        self.read().get(key).cloned()
    }

    /// All of them, by key.
    pub(crate) fn all(&self) -> Vec<Arc<Circuit>> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }

    /// Forgets the keys that were idle for too long.
    pub(crate) fn forget_idle(&self, settings: &KeySettings, now: Time) {
        if self.read().is_empty() {
            return;
        }
        let mut circuits = self
            .circuits
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        circuits
            .retain(|_, circuit| circuit.idle_for(now) < settings.idle || !may_go(circuit, now));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Arc<str>, Arc<Circuit>>> {
        self.circuits.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under the write lock nobody can come by a circuit that only the ring holds.
fn may_go(circuit: &Arc<Circuit>, now: Time) -> bool {
    Arc::strong_count(circuit) == 1 && circuit.is_forgettable(now)
}

/// Forgets whoever was idle too long, and at least the one that was idle longest.
fn make_room(circuits: &mut HashMap<Arc<str>, Arc<Circuit>>, settings: &KeySettings, now: Time) {
    let before = circuits.len();
    circuits.retain(|_, circuit| circuit.idle_for(now) < settings.idle || !may_go(circuit, now));
    if circuits.len() < before {
        return;
    }
    let idlest = circuits
        .iter()
        .filter(|(_, circuit)| may_go(circuit, now))
        .max_by_key(|(_, circuit)| circuit.idle_for(now))
        .map(|(key, _)| Arc::clone(key));
    if let Some(key) = idlest {
        circuits.remove(&key);
    }
}
