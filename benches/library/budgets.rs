//! Performance budgets as ratios within one run: `cargo bench --bench budgets`.
//!
//! Every case runs in every round, so that noise of the machine affects all cases alike. A ratio is
//! the median over the rounds of (case / yardstick in the same round).

#![allow(clippy::print_stdout, reason = "the table is the result")]
#![allow(dead_code, reason = "criterion uses the other cases")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/field.rs"]
mod field;
#[path = "../support/rounds.rs"]
mod rounds;

use cases::Layers;
use rounds::{line, median, run};

/// Maximum cost of each path, in nanoseconds.
const ABSOLUTE: [(&str, f64); 5] = [
    ("kernel: admit + record", 20.0),
    ("refusal while open", 15.0),
    ("run, breaker only", 40.0),
    ("run, every layer", 120.0),
    ("crash -> running -> answer", 10_000.0),
];

fn say(what: &str, figure: f64, budget: f64) {
    if figure.is_nan() {
        return; // an argument left its case out
    }
    let verdict = if figure <= budget { "holds" } else { "MISSED" };
    println!("{what}: {figure:.2} (<= {budget:.2}) {verdict}");
}

fn main() {
    let is_whole = !std::env::args()
        .skip(1)
        .any(|argument| !argument.starts_with("--"));
    let (actor, dependency) = if is_whole {
        cases::memory(2_000)
    } else {
        (0, 0)
    };
    let mut lines = vec![
        line("kernel: admit + record", cases::kernel),
        line("refusal while open", cases::refusal),
        line("run, breaker only", |n| {
            cases::run_closed(Layers::BreakerOnly, n)
        }),
        line("run, every layer", |n| cases::run_closed(Layers::All, n)),
        line("ask, every layer", |n| cases::ask(Layers::All, 1, n)),
        line("ask, every layer, 1024 callers", |n| {
            cases::ask(Layers::All, 1024, n)
        }),
        line("ask, 64 pending", |n| cases::ask_pending(64, n)),
        line("ask, 1024 pending", |n| cases::ask_pending(1024, n)),
        line("ask, usual layers, 64 callers", |n| {
            cases::ask(Layers::Usual, 64, n)
        }),
        line("ask, two threads, 64 callers each", |n| {
            cases::ask_on_two_threads(64, n)
        }),
        line("Call to the breaker actor", cases::call_message),
        line("crash -> running -> answer", cases::crash_to_running),
        line("= mpsc + oneshot", |n| cases::mpsc_oneshot(1, n)),
        line("= mpsc + oneshot, 64 callers", |n| {
            cases::mpsc_oneshot(64, n)
        }),
        line("= mpsc + oneshot, 1024 callers", |n| {
            cases::mpsc_oneshot(1024, n)
        }),
        line("= recloser", field::recloser_closed),
        line("= recloser's refusal", field::recloser_open),
        line("= failsafe", field::failsafe_closed),
        line("= tower's breaker", field::tower_breaker),
        line("= tower's stack", field::tower_stack),
        line("= actix ask", cases::actix_ask),
        line("= two actix asks", cases::two_actix_asks),
        line("= two forwarded do_send hops", cases::two_forwarded_hops),
    ];
    run(&mut lines);
    println!();
    for (path, budget) in ABSOLUTE {
        let found = lines.iter().find(|line| line.name == path);
        say(
            path,
            found.map_or(f64::NAN, |line| median(line.nanos.clone())),
            budget,
        );
    }
    let ratios = [
        ("refusal while open", "= recloser's refusal", 1.0),
        ("run, every layer", "= tower's stack", 0.25),
        ("ask, every layer", "= mpsc + oneshot", 1.6),
        (
            "Call to the breaker actor",
            "= two forwarded do_send hops",
            1.5,
        ),
        (
            "ask, every layer, 1024 callers",
            "= mpsc + oneshot, 1024 callers",
            1.0 / 0.6,
        ),
        ("ask, 1024 pending", "ask, 64 pending", 1.25),
        (
            "ask, two threads, 64 callers each",
            "ask, usual layers, 64 callers",
            1.0 / 1.5,
        ),
    ];
    for (path, yardstick, budget) in ratios {
        let of = |name: &str| {
            let found = lines.iter().find(|line| line.name == name);
            found.map(|line| line.nanos.clone()).unwrap_or_default()
        };
        let ratios = of(path)
            .iter()
            .zip(of(yardstick))
            .map(|(case, yardstick)| case / yardstick)
            .collect::<Vec<f64>>();
        if ratios.is_empty() {
            continue;
        }
        say(&format!("{path} / {yardstick}"), median(ratios), budget);
    }
    if !is_whole {
        return;
    }
    say("supervised idle actor, KB", actor as f64 / 1e3, 4.0);
    say(
        "dependency with two workers, KB",
        dependency as f64 / 1e3,
        64.0,
    );
}
