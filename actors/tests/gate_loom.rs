//! Loom runs every interleaving of the gate: two callers that count successes while the breaker
//! actor publishes a new generation and takes what was counted.

#![allow(clippy::unwrap_used, reason = "a test")]

use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/gate.rs"]
#[allow(
    dead_code,
    reason = "the rest of the module is used by the package itself"
)]
mod gate;

use gate::{Gate, GateWord, Mode, Successes};

/// Adds up successes by generation.
fn tally(all: impl IntoIterator<Item = Option<Successes>>) -> [u64; 2] {
    let mut by_generation = [0, 0];
    for successes in all.into_iter().flatten() {
        by_generation[usize::try_from(successes.tag()).unwrap()] += successes.count();
    }
    by_generation
}

#[test]
fn call_3_every_success_reaches_the_breaker_once_with_its_own_generation() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(GateWord::new(Mode::Closed, 0, 0)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    let word = gate.read();
                    (word.tag(), gate.count_success(word.tag(), 0))
                })
            })
            .collect();
        let mut told = vec![gate.take_successes()];
        gate.publish(GateWord::new(Mode::Closed, 1, 0));
        told.push(gate.take_successes());
        let mut counted = [0, 0];
        for caller in callers {
            let (tag, flushed) = caller.join().unwrap();
            counted[usize::try_from(tag).unwrap()] += 1;
            told.push(flushed);
        }
        told.push(gate.take_successes());
        assert_eq!(tally(told), counted);
    });
}

#[test]
fn brk_3_a_reader_sees_a_whole_word() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(GateWord::new(Mode::Closed, 1, 0)));
        let reader = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.read())
        };
        gate.publish(GateWord::new(Mode::Open, 2, 30_000));
        let seen = reader.join().unwrap();
        let whole = [(Mode::Closed, 1, 0), (Mode::Open, 2, 30_000)];
        assert!(whole.contains(&(seen.mode(), seen.tag(), seen.retry_at_ms())));
    });
}
