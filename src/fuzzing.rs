//! Targets for fuzzers: each reads any bytes with parsers of this crate, and checks properties that
//! hold for all of them.
//!
//! They stand beside the parsers, in a module `fuzzing` of each. The folder `fuzz` runs them under
//! libFuzzer, and the tests here with its corpus and with mutations by seed. They are compiled for
//! tests and under `cfg(fuzzing)` alone, so they are no part of the library.

#[cfg(test)]
mod tests;

/// A target: its name, which is that of its corpus, and its function.
#[derive(Debug, Clone, Copy)]
pub struct FuzzTarget {
    /// The name.
    pub name: &'static str,
    /// Reads bytes, and panics if a property does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [FuzzTarget; 14] = [
    target("configuration", crate::config::fuzzing::configuration),
    target("variables", crate::config::fuzzing::variables),
    target("durations", crate::config::fuzzing::durations),
    target("hints", crate::retry_after::fuzzing::hints),
    target("deadlines", crate::gateway::fuzzing::deadlines),
    target("paths", crate::gateway::fuzzing::paths),
    target("traces", crate::recorder::fuzzing::traces),
    target("model_events", crate::model::fuzzing::model_events),
    target("model_bodies", crate::model::fuzzing::model_bodies),
    target("mcp_events", crate::mcp::fuzzing::mcp_events),
    target("mcp_messages", crate::mcp::fuzzing::mcp_messages),
    target("raw_objects", crate::gateway::fuzzing::raw_objects),
    target("fleet_words", crate::fleet::fuzzing::fleet_words),
    target(
        "queue_messages",
        crate::sidecar::consumers::fuzzing::queue_messages,
    ),
];

const fn target(name: &'static str, run: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, run }
}

/// Runs one target.
///
/// # Panics  A property does not hold, or there is no target of this name.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|target| target.name == name);
    let found = found.expect("a target has this name");
    (found.run)(data);
}
