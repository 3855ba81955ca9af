//! The cost of each layer of a call: `cargo bench --bench layers`.
//!
//! The breaker alone is the yardstick. Each case adds one layer, the last one all of them. The cost
//! is the median over the rounds of (case - breaker only) in the same round.

#![allow(clippy::print_stdout, reason = "the table is the result")]
#![allow(dead_code, reason = "the other benchmarks use the rest")]

#[path = "support/cases.rs"]
mod cases;
#[path = "../support/rounds.rs"]
mod rounds;

use breakerbox::Session;
use breakerbox::prelude::*;
use cases::{Layer, Layers};
use rounds::{Line, line, median, run};

fn with(name: &'static str, layer: Layer) -> Line {
    line(name, move |n| cases::run_closed(Layers::With(layer), n))
}

/// A layer that only the options of a call can request.
fn asked(name: &'static str, layers: Layers, options: CallOptions) -> Line {
    line(name, move |n| cases::run_with(layers, &options, n))
}

fn main() {
    let plain = CallOptions::default;
    let idempotent = CallOptions {
        idempotent: Some(true),
        ..plain()
    };
    let write = CallOptions {
        write: Some(true),
        ..plain()
    };
    let key = CallOptions {
        key: Some("tenant".into()),
        ..plain()
    };
    let session = CallOptions {
        session: Some(Session::new(u64::MAX)),
        ..plain()
    };
    let mut lines = vec![
        line("breaker only", |n| {
            cases::run_closed(Layers::BreakerOnly, n)
        }),
        with("+ timeouts", Layer::Timeouts),
        with("+ slow calls", Layer::SlowCalls),
        with("+ retries", Layer::Retries),
        with("+ rate limit", Layer::RateLimit),
        with("+ adaptive bulkhead", Layer::Adaptive),
        with("+ chaos, none of it hitting", Layer::Chaos),
        asked("+ options", Layers::BreakerOnly, plain()),
        line("+ the attribute's look-up", |n| {
            cases::run_protected(Layers::BreakerOnly, n)
        }),
        asked(
            "+ hedging",
            Layers::With(Layer::Hedging),
            idempotent.clone(),
        ),
        asked("+ places for writes", Layers::With(Layer::Writes), write),
        asked("+ a breaker for the key", Layers::BreakerOnly, key),
        asked("+ a session", Layers::BreakerOnly, session),
        line("the usual layers", |n| cases::run_closed(Layers::Usual, n)),
        line("the usual layers + rate limit", |n| {
            cases::run_closed(Layers::All, n)
        }),
        asked("every layer there is", Layers::Everything, idempotent),
    ];
    run(&mut lines);
    println!();
    // An argument may have left the base line out.
    let base = lines.first().filter(|line| line.name == "breaker only");
    let Some(alone) = base.map(|line| line.nanos.clone()) else {
        return;
    };
    for line in &lines[1..] {
        let each = line.nanos.iter().zip(&alone);
        let price = median(each.map(|(with, without)| with - without).collect());
        println!("{:<36} {price:>+10.1} ns", line.name);
    }
}
