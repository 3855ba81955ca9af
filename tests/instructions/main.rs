//! The instructions, allocations and clock reads of the paths that each call takes, against stored
//! figures: a change that makes one of them dearer shows at once, also on a busy machine.
//!
//! This program runs itself under valgrind's callgrind. `BREAKERBOX_INSTRUCTIONS=store` writes the
//! figures anew. They hold for one compiler and for builds without optimization; with another
//! compiler the check is passed by.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod callgrind;
mod figures;
mod paths;

#[path = "../../actors/src/breaker/gate.rs"]
#[allow(
    dead_code,
    reason = "the rest of the module is used by the package itself"
)]
mod gate;
#[path = "../../actors/src/sync.rs"]
#[allow(dead_code, unused_imports, reason = "the gate uses a part of it")]
mod sync;

use figures::{PathFigures, StoredFigures, compiler};
use paths::PATHS;

/// Set in a process under callgrind to the number of the paths that it takes.
const MEASURED: &str = "BREAKERBOX_INSTRUCTIONS_MEASURED";
/// Cost beyond the stored one that is no regression, in percent: what is random, such as seeds of
/// hash maps, moves the counts by less than one.
const TOLERANCE: f64 = 3.0;

#[test]
fn no_path_of_a_call_costs_more_than_is_stored() {
    if let Ok(number) = std::env::var(MEASURED) {
        let number: usize = number.parse().unwrap();
        (PATHS[number].run)();
        return;
    }
    if !cfg!(debug_assertions) {
        println!("passed by: the figures are those of a build without optimization");
        return;
    }
    let required = std::env::var_os("BREAKERBOX_TEST_REQUIRE_ALL").is_some();
    if !callgrind::is_installed() {
        assert!(!required, "valgrind is not installed");
        println!("passed by: valgrind is not installed");
        return;
    }
    let stores = std::env::var("BREAKERBOX_INSTRUCTIONS").is_ok_and(|value| value == "store");
    let compiler = compiler();
    let stored = StoredFigures::read();
    if !stores && stored.compiler != compiler {
        println!(
            "passed by: the figures are those of {}, and this is {compiler}",
            stored.compiler
        );
        return;
    }
    let all = PATHS.iter().enumerate();
    let seen = all.map(|(number, paths)| callgrind::measure(MEASURED, number, paths));
    let seen: Vec<_> = seen.flatten().collect();
    for figures in &seen {
        println!("{figures}");
    }
    if stores {
        StoredFigures {
            compiler,
            paths: seen,
        }
        .write();
        return;
    }
    let dearer: Vec<_> = seen
        .iter()
        .filter_map(|seen| stored.path(&seen.name).judge(seen, TOLERANCE))
        .collect();
    assert!(
        dearer.is_empty(),
        "{}\nif that is meant, write the figures anew: BREAKERBOX_INSTRUCTIONS=store",
        dearer.join("\n")
    );
}

#[test]
fn a_dearer_path_is_told_from_noise() {
    let figures = |instructions, clock_reads| PathFigures {
        name: "ask".to_owned(),
        instructions,
        allocations: 2,
        clock_reads,
    };
    let stored = figures(1_000, 2);
    assert_eq!(stored.judge(&figures(1_030, 2), TOLERANCE), None);
    assert_eq!(stored.judge(&figures(971, 2), TOLERANCE), None);
    let told = stored.judge(&figures(1_031, 2), TOLERANCE).unwrap();
    assert!(told.contains("1031 instructions, stored 1000"), "{told}");
    // A path that has become cheaper is stored anew: else the next regression hides in the gain.
    let told = stored.judge(&figures(969, 2), TOLERANCE).unwrap();
    assert!(told.contains("969 instructions, stored 1000"), "{told}");
    let told = stored.judge(&figures(1_000, 3), TOLERANCE).unwrap();
    assert!(told.contains("3 clock reads, stored 2"), "{told}");
}
