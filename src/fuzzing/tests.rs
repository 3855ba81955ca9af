//! The targets on a stable compiler: with their corpora, and with mutations of them by seed.
//!
//! `BREAKERBOX_FUZZ_SECONDS` makes each target run for so long, and `BREAKERBOX_FUZZ_SEED` selects
//! other mutations.

mod mutator;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::TARGETS;
use mutator::Mutator;

/// Seed of the mutations in the gate.
const SEED: u64 = 18;

/// Returns the inputs of a target in their order: its corpus.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let Ok(files) = std::fs::read_dir(folder.join(name)) else {
        // A published package has no corpus.
        let requires_all = std::env::var_os("BREAKERBOX_TEST_REQUIRE_ALL").is_some();
        assert!(!requires_all, "there is no corpus of {name}");
        return Vec::new();
    };
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Runs a target with its corpus, and with as many mutations as the gate has time for.
fn fuzz(name: &str, mutations: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let check = |input: &[u8]| {
        let run = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        assert!(
            run.is_ok(),
            "{name} fails with b\"{}\"",
            input.escape_ascii()
        );
    };
    let corpus = corpus(name);
    corpus.iter().for_each(|input| check(input));
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seed = number("BREAKERBOX_FUZZ_SEED").unwrap_or(SEED);
    let seconds = number("BREAKERBOX_FUZZ_SECONDS").map(Duration::from_secs);
    // One of the gate's two runs of all tests is enough.
    if corpus.is_empty() || !(cfg!(feature = "testing") || seconds.is_some()) {
        return;
    }
    let clock = quanta::Clock::new();
    let begun = clock.now();
    let mut mutator = Mutator::new(&corpus, seed);
    let mut run = 0;
    while seconds.map_or(run < mutations, |span| clock.now() - begun < span) {
        check(&mutator.next());
        run += 1;
    }
    println!(
        "{name}: {} inputs and {run} mutations of them",
        corpus.len()
    );
}

#[test]
fn configuration() {
    fuzz("configuration", 400);
}

#[test]
fn variables() {
    fuzz("variables", 400);
}

#[test]
fn durations() {
    fuzz("durations", 40_000);
}

#[test]
fn hints() {
    fuzz("hints", 20_000);
}

#[test]
fn deadlines() {
    fuzz("deadlines", 40_000);
}

#[test]
fn paths() {
    fuzz("paths", 20_000);
}

#[test]
fn traces() {
    fuzz("traces", 20_000);
}

#[test]
fn model_events() {
    fuzz("model_events", 10_000);
}

#[test]
fn model_bodies() {
    fuzz("model_bodies", 10_000);
}

#[test]
fn mcp_events() {
    fuzz("mcp_events", 20_000);
}

#[test]
fn mcp_messages() {
    fuzz("mcp_messages", 20_000);
}

#[test]
fn raw_objects() {
    fuzz("raw_objects", 20_000);
}

#[test]
fn fleet_words() {
    fuzz("fleet_words", 20_000);
}

#[test]
fn queue_messages() {
    fuzz("queue_messages", 20_000);
}

#[test]
fn each_target_has_a_corpus_and_a_file_for_libfuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !folder.exists() {
        return;
    }
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        assert!(!corpus(name).is_empty(), "{name} has no corpus");
        assert!(folder.join(format!("targets/{name}.rs")).exists(), "{name}");
        let line = format!("path = \"targets/{name}.rs\"");
        assert!(manifest.contains(&line), "{name} is not in fuzz/Cargo.toml");
    }
}
