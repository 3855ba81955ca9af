//! Guarantees of supervisors, on real actors (rules SUP-1 to SUP-8).

mod actors;

mod drain;
mod faults;
mod given_up;
mod groups;
mod watch;

use std::time::Duration;

use breakerbox::Child;

pub(crate) use actors::{Behave, Log, Probe};

const MOMENT: Duration = Duration::from_millis(10);

fn probe(name: &'static str, log: &Log) -> Child<Probe> {
    let log = log.clone();
    Child::permanent(name, move || Probe::new(name, &log))
}
