//! Fleets on a real NATS server: several runtimes in this process, and several processes.
//!
//! Without `nats-server` each test says so and passes by; with `BREAKERBOX_TEST_REQUIRE_ALL=1`, as the
//! gate sets it, it fails. `BREAKERBOX_FLEET_REPLICAS` and `BREAKERBOX_FLEET_SECONDS` make the measured
//! test larger and longer.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod figures;
mod keys;
mod lost;
mod measured;
mod processes;
mod rates;
mod replicas;
mod runtimes;
mod secured;
mod server;
mod tokens;
