//! Breakers of a dependency's keys, and the choice of the next one to evict.
//!
//! It never evicts a breaker that refuses, has an override of its own, or is still referenced, and one
//! that is not closed only if its key was idle for too long or no other one can make room.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwapOption;
use breakerbox_policy::{KeySettings, Override, State, Time};

use super::shared::{SharedBreaker, word_of};
use crate::sync::RwLockExt;

/// Upper bound on breakers inspected per eviction, so that inserting a key stays cheap when few can
/// be evicted.
const MAX_CHECKS: usize = 64;

/// Number of keys that must fail, without a success of any key in between, before a failure counts
/// for the whole dependency. One or two sick keys say nothing about the others.
const SHARED_FAILURE: u32 = 3;

/// The breakers of a dependency's keys.
///
/// A held `Arc` protects a breaker from eviction. A call holds one from its start until it is
/// counted.
#[derive(Debug, Default)]
pub(crate) struct KeyedBreakers {
    table: RwLock<LruTable>,
    /// The dependency's shadow override, which its keys must have too.
    shadow: ArcSwapOption<Override>,
    /// Number of keys that began to fail since the last success of a key.
    failing: AtomicU32,
}

#[derive(Debug, Default)]
struct LruTable {
    breakers: HashMap<Arc<str>, Arc<SharedBreaker>>,
    /// Each key once, the longest idle first. The times are those of the last eviction check: a key
    /// used since then moves back when it is checked next.
    order: BinaryHeap<Reverse<(Time, Arc<str>)>>,
}

impl KeyedBreakers {
    /// Returns the breaker of this key, made if needed; `None` if there is no room for another one.
    /// `forgotten`: hears of each breaker that makes room, under the lock of the table.
    pub(crate) fn get(
        &self,
        key: &str,
        settings: &KeySettings,
        now: Time,
        make: impl FnOnce(Arc<str>) -> SharedBreaker,
        forgotten: impl FnMut(&SharedBreaker),
    ) -> Option<Arc<SharedBreaker>> {
        if let Some(breaker) = self.find(key) {
            breaker.mark_used(now);
            return Some(breaker);
        }
        let mut table = self.write();
        if let Some(breaker) = table.breakers.get(key) {
            breaker.mark_used(now);
            return Some(Arc::clone(breaker));
        }
        let most = usize::try_from(settings.max_entries.get()).unwrap_or(usize::MAX);
        if !table.make_room(most, now, forgotten) {
            return None;
        }
        let key: Arc<str> = Arc::from(key);
        let breaker = Arc::new(make(Arc::clone(&key)));
        if let Some(shadow) = &*self.shadow.load() {
            let mut machine = breaker.lock();
            breaker.apply_shadow(&mut machine, Some(shadow), now);
            breaker.gate.publish(word_of(&machine, now));
        }
        table.order.push(Reverse((now, Arc::clone(&key))));
        table.breakers.insert(key, Arc::clone(&breaker));
        Some(breaker)
    }

    /// The breaker of this key, if it is known.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<SharedBreaker>> {
        self.read().breakers.get(key).cloned()
    }

    /// Returns the keys, in their order.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        let mut keys: Vec<_> = self.read().breakers.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Visits each breaker, sorted by key. Only one `Arc` is held at a time: held breakers cannot
    /// be evicted, and a new key would find no room.
    pub(crate) fn each(&self, mut what: impl FnMut(Arc<SharedBreaker>)) {
        for breaker in self.names().iter().filter_map(|key| self.find(key)) {
            what(breaker);
        }
    }

    /// Stores the dependency's shadow override for keys that come later. Returns false if it is
    /// unchanged.
    pub(crate) fn set_shadow(&self, shadow: Option<&Override>) -> bool {
        let old = self.shadow.load();
        if old.as_deref() == shadow {
            return false;
        }
        self.shadow.store(shadow.cloned().map(Arc::new));
        true
    }

    /// The dependency's shadow override, if it has one.
    pub(super) fn shadow(&self) -> Option<Arc<Override>> {
        self.shadow.load_full()
    }

    /// Notes an outcome of a key. Returns true if it counts for the whole dependency: each success,
    /// and each failure with which one more of several keys begins to fail.
    pub(crate) fn counts_for_all(&self, key: &SharedBreaker, failed: bool) -> bool {
        let begins = key.begins_to_fail(failed);
        if failed {
            return begins && self.failing.fetch_add(1, Ordering::Relaxed) + 1 >= SHARED_FAILURE;
        }
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.failing.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Evicts the keys that were idle for too long. `forgotten`: as in [`KeyedBreakers::get`].
    pub(crate) fn forget_idle(
        &self,
        settings: &KeySettings,
        now: Time,
        forgotten: impl FnMut(&SharedBreaker),
    ) {
        if !self.read().breakers.is_empty() {
            self.write().forget_idle(settings, now, forgotten);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, LruTable> {
        self.table.acquire_read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, LruTable> {
        self.table.acquire_write()
    }
}

/// Result of an eviction check.
enum EvictionCheck {
    /// It may go, or is gone.
    Free,
    /// It may go, and is not closed.
    NotClosed,
    /// It was used since the last check.
    Used(Time),
    Kept,
}

impl LruTable {
    /// Checks whether a key was not used since `seen` and nothing protects it.
    fn check_eviction(&self, key: &Arc<str>, seen: Time, now: Time) -> EvictionCheck {
        let Some(breaker) = self.breakers.get(key) else {
            return EvictionCheck::Free;
        };
        let used = breaker.used();
        if used > seen {
            return EvictionCheck::Used(used);
        }
        // Under the write lock, no thread can clone an `Arc` that only the table holds.
        if Arc::strong_count(breaker) > 1 || !breaker.is_forgettable(now) {
            return EvictionCheck::Kept;
        }
        match breaker.state() {
            State::Closed => EvictionCheck::Free,
            _ => EvictionCheck::NotClosed,
        }
    }

    fn evict(&mut self, key: &Arc<str>, mut forgotten: impl FnMut(&SharedBreaker)) {
        if let Some(breaker) = self.breakers.remove(key) {
            forgotten(&breaker);
        }
    }

    /// Evicts the longest idle keys until there is room for one more, those with a closed breaker
    /// first. Returns false if there is none.
    fn make_room(
        &mut self,
        most: usize,
        now: Time,
        mut forgotten: impl FnMut(&SharedBreaker),
    ) -> bool {
        let mut kept = Vec::new();
        let mut not_closed = Vec::new();
        while self.breakers.len() >= most && kept.len() + not_closed.len() < MAX_CHECKS {
            let Some(Reverse((seen, key))) = self.order.pop() else {
                break;
            };
            match self.check_eviction(&key, seen, now) {
                EvictionCheck::Free => self.evict(&key, &mut forgotten),
                EvictionCheck::NotClosed => not_closed.push(Reverse((seen, key))),
                EvictionCheck::Used(used) => self.order.push(Reverse((used, key))),
                // It is checked again only after the others.
                EvictionCheck::Kept => kept.push(Reverse((now, key))),
            }
        }
        self.order.extend(kept);
        // BRK-12: a sick key is watched for as long as a well one can make room.
        for Reverse((seen, key)) in not_closed {
            match self.breakers.len() >= most {
                true => self.evict(&key, &mut forgotten),
                false => self.order.push(Reverse((seen, key))),
            }
        }
        self.breakers.len() < most
    }

    fn forget_idle(
        &mut self,
        settings: &KeySettings,
        now: Time,
        mut forgotten: impl FnMut(&SharedBreaker),
    ) {
        let mut kept = Vec::new();
        while let Some(Reverse((seen, _))) = self.order.peek()
            && now.since(*seen) >= settings.idle
        {
            let Some(Reverse((seen, key))) = self.order.pop() else {
                break;
            };
            match self.check_eviction(&key, seen, now) {
                EvictionCheck::Free | EvictionCheck::NotClosed => {
                    self.evict(&key, &mut forgotten);
                }
                EvictionCheck::Used(used) => self.order.push(Reverse((used, key))),
                EvictionCheck::Kept => kept.push(Reverse((now, key))),
            }
        }
        self.order.extend(kept);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use breakerbox_policy::{BreakerSettings, Class, Outcome};

    use super::*;

    fn room(max_entries: u32) -> KeySettings {
        KeySettings {
            max_entries: NonZeroU32::new(max_entries).unwrap(),
            idle: Duration::from_secs(600),
        }
    }

    fn get(keys: &KeyedBreakers, key: &str, most: u32, now: Time) -> Option<Arc<SharedBreaker>> {
        let make =
            |key| SharedBreaker::new(Arc::from("d"), Some(key), &BreakerSettings::default(), now);
        keys.get(key, &room(most), now, make, |_| {})
    }

    fn order(keys: &KeyedBreakers) -> usize {
        keys.read().order.len()
    }

    #[test]
    fn brk_12_who_holds_a_circuit_holds_the_registered_one() {
        let keys = KeyedBreakers::default();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (keys, over) = (&keys, &over);
                scope.spawn(move || {
                    let key = format!("kept-{thread}");
                    for turn in 0..20_000 {
                        let Some(held) = get(keys, &key, 3, Time::from_millis(turn)) else {
                            continue;
                        };
                        let known = keys.find(&key).expect("whoever is held is registered");
                        assert!(Arc::ptr_eq(&held, &known));
                    }
                    over.store(true, Ordering::Relaxed);
                });
            }
            let (keys, over) = (&keys, &over);
            scope.spawn(move || {
                let mut turn = 0;
                while !over.load(Ordering::Relaxed) {
                    turn += 1;
                    get(keys, &format!("other-{turn}"), 3, Time::from_millis(turn));
                    keys.forget_idle(&room(3), Time::from_millis(turn * 1_000_000), |_| {});
                }
            });
        });
        assert!(order(&keys) <= 3);
    }

    #[test]
    fn call_6_each_key_is_in_the_order_once() {
        let keys = KeyedBreakers::default();
        let mut held = Vec::new();
        for turn in 0..10_000_u64 {
            let now = Time::from_millis(turn);
            let breaker = get(&keys, &format!("key-{}", turn * 7 % 100), 50, now);
            if turn % 13 == 0 {
                held.truncate(20);
                held.insert(0, breaker);
            }
            let table = keys.read();
            assert_eq!(table.order.len(), table.breakers.len());
            assert!(table.breakers.len() <= 50);
        }
    }

    #[test]
    fn brk_12_among_many_that_must_stay_the_one_that_may_go_is_found() {
        let keys = KeyedBreakers::default();
        let mut held = Vec::new();
        for number in 0..1_000 {
            held.push(get(&keys, &format!("held-{number}"), 1_001, Time::ZERO));
        }
        drop(get(&keys, "free", 1_001, Time::from_millis(1)));
        // Checking each of them takes several insertions, and no insertion checks all of them.
        let turns = (2..).find(|turn| get(&keys, "new", 1_001, Time::from_millis(*turn)).is_some());
        assert!((3..40).contains(&turns.unwrap()), "{turns:?}");
        assert!(keys.find("free").is_none());
    }

    #[test]
    fn call_6_a_lower_cap_is_kept_to_at_the_next_key() {
        let keys = KeyedBreakers::default();
        for number in 0..30 {
            get(
                &keys,
                &format!("key-{number}"),
                30,
                Time::from_millis(number),
            );
        }
        assert!(get(&keys, "new", 5, Time::from_millis(40)).is_some());
        assert_eq!(keys.read().breakers.len(), 5);
        assert!(keys.find("key-29").is_some());
    }

    /// Fails a key until its breaker opens, and returns the end of its open time.
    fn trip(keys: &KeyedBreakers, key: &str, now: Time) -> Time {
        let sick = get(keys, key, 10, now).unwrap();
        let mut machine = sick.lock();
        while machine.state() == State::Closed {
            let permit = machine.admit(now).unwrap();
            let failure = Outcome::new(Class::Failure, Duration::ZERO);
            machine.record(now, permit, &failure, &mut || 0.5);
        }
        machine.next_deadline().unwrap()
    }

    #[test]
    fn brk_12_a_sick_key_makes_room_after_the_well_ones_and_is_told() {
        let keys = KeyedBreakers::default();
        let over = trip(&keys, "sick", Time::ZERO);
        let mut now = over.after(Duration::from_secs(1));
        for well in ["b", "c"] {
            get(&keys, well, 3, now);
        }
        let gone = std::cell::RefCell::new(Vec::new());
        let mut get_new = |key: &str, most| {
            now = now.after(Duration::from_secs(1));
            let make = |key| {
                SharedBreaker::new(Arc::from("d"), Some(key), &BreakerSettings::default(), now)
            };
            let forgotten = |one: &SharedBreaker| {
                let name = one.key.as_deref().unwrap_or_default().to_owned();
                gone.borrow_mut().push((name, one.forgotten().is_some()));
            };
            let made = keys.get(key, &room(most), now, make, forgotten);
            assert!(made.is_some(), "{key}");
        };
        let told = |key: &str, is_event| (key.to_owned(), is_event);
        get_new("e", 3);
        get_new("f", 3);
        assert_eq!(gone.take(), [told("b", false), told("c", false)]);
        // All of the others have to go.
        get_new("g", 1);
        let expected = [told("e", false), told("f", false), told("sick", true)];
        assert_eq!(gone.take(), expected);
        assert_eq!(order(&keys), 1);
    }

    #[test]
    fn brk_12_an_open_breaker_is_kept_until_its_open_time_is_over() {
        let keys = KeyedBreakers::default();
        let over = trip(&keys, "sick", Time::ZERO);
        let settings = KeySettings {
            idle: Duration::from_secs(1),
            ..room(10)
        };
        let before = Time::from_nanos(over.as_nanos() - 1);
        keys.forget_idle(&settings, before, |_| {});
        assert!(keys.find("sick").is_some());
        keys.forget_idle(&settings, over.after(settings.idle), |_| {});
        assert!(keys.find("sick").is_none());
    }
}
