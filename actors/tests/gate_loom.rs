//! Loom runs every interleaving of the gate: a thread counts successes while the breaker actor
//! publishes a new generation and takes the counted successes.

#![allow(clippy::unwrap_used, reason = "a test")]

use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) trait LockExt<T> {
        fn acquire(&self) -> MutexGuard<'_, T>;
    }

    impl<T> LockExt<T> for Mutex<T> {
        fn acquire(&self) -> MutexGuard<'_, T> {
            self.lock().unwrap()
        }
    }
}

#[path = "../src/breaker/gate.rs"]
#[allow(
    dead_code,
    reason = "the rest of the module is used by the package itself"
)]
mod gate;

use gate::{Gate, GateMode, GateWord, SuccessBatch, SuccessCounter};

/// Sums successes by generation.
fn by_generation(all: impl IntoIterator<Item = Option<SuccessBatch>>) -> [u64; 2] {
    let mut sums = [0, 0];
    for successes in all.into_iter().flatten() {
        sums[usize::try_from(successes.tag()).unwrap()] += successes.count();
    }
    sums
}

#[test]
fn call_3_every_success_reaches_the_breaker_once_with_its_own_generation() {
    loom::model(|| {
        let gate = Arc::new((
            Gate::new(GateWord::new(GateMode::Closed, 0, 0)),
            SuccessCounter::new(),
        ));
        let caller = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                let (gate, tally) = &*gate;
                [0; 3].map(|_| {
                    let tag = gate.read().tag();
                    (tag, tally.count(tag, 0))
                })
            })
        };
        let (word, tally) = &*gate;
        let mut told = vec![tally.take()];
        word.publish(GateWord::new(GateMode::Closed, 1, 0));
        told.push(tally.take());
        let mut counted = [0, 0];
        for (tag, flushed) in caller.join().unwrap() {
            counted[usize::try_from(tag).unwrap()] += 1;
            told.push(flushed);
        }
        told.push(tally.take());
        assert_eq!(by_generation(told), counted);
    });
}

#[test]
fn brk_3_a_reader_sees_a_whole_word() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(GateWord::new(GateMode::Closed, 1, 0)));
        let reader = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.read())
        };
        gate.publish(GateWord::new(GateMode::Open, 2, 30_000));
        let seen = reader.join().unwrap();
        let whole = [(GateMode::Closed, 1, 0), (GateMode::Open, 2, 30_000)];
        assert!(whole.contains(&(seen.mode(), seen.tag(), seen.retry_at_ms())));
    });
}
