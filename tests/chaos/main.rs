//! `breakerbox serve` with HTTP, MCP, model and consumer dependencies under one fault after another.
//!
//! After each fault: every call has one answer, callers of other dependencies have not noticed,
//! everything is well again within the backoffs, the books balance, each message has its answer,
//! and neither descriptors nor processes are left over. At the end memory has not grown.
//!
//! `BREAKERBOX_CHAOS_SECONDS` sets the duration: faults are brought about until it is over, one at
//! least. `BREAKERBOX_CHAOS_FAULT` is the number of the one to begin with, and
//! `BREAKERBOX_CHAOS_BINARY` names another binary than the one of this build.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]
#![cfg(target_os = "linux")]

mod bed;
mod broker;
mod callers;
mod faults;
mod service;
mod sidecar;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bed::Bed;
use faults::{FAULTS, SmallDisk};
use sidecar::open_descriptors;

/// Longest wait for anything that has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Duration of a fault.
const LASTS: Duration = Duration::from_millis(1_200);

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_come_and_go_and_nothing_stays() {
    let span = Duration::from_secs(number("BREAKERBOX_CHAOS_SECONDS").unwrap_or(1));
    let first = number("BREAKERBOX_CHAOS_FAULT").unwrap_or(0);
    let first = usize::try_from(first).unwrap();
    let Some(mut bed) = Bed::start().await else {
        let required = std::env::var_os("BREAKERBOX_TEST_REQUIRE_ALL").is_some();
        assert!(!required, "nats-server is not installed");
        println!("passed by: nats-server is not installed");
        return;
    };
    let begun = quanta::Instant::now();
    let mut early = None;
    let mut slowest = Duration::ZERO;
    let mut done = 0;
    while done == 0 || begun.elapsed() < span {
        let fault = FAULTS[(first + done) % FAULTS.len()];
        done += 1;
        let (before, trips) = (bed.counts(), bed.trips().await);
        if !fault.begin(&mut bed).await {
            println!("{fault:?}: passed by, this machine cannot bring it about");
            continue;
        }
        tokio::time::sleep(LASTS).await;
        fault.end(&mut bed);
        let again = bed.until_well(&format!("after {fault:?}")).await;
        slowest = slowest.max(again);
        bed.callers.pause().await;
        bed.check_calls(fault, before);
        bed.check_rest(fault).await;
        let opened = bed.trips().await;
        bed.check_trips(fault, trips, opened);
        let memory = bed.sidecar.resident();
        let descriptors = bed.sidecar.descriptors();
        let connections = bed.connections();
        println!(
            "{:5.1} s {fault:?}: well again after {again:.1?}, {memory} KiB, {descriptors} \
             descriptors, {} of this program, {connections:?} connections of services",
            begun.elapsed().as_secs_f64(),
            open_descriptors("self"),
        );
        // By then each kind of fault has left its traces in histories and pools.
        if early.is_none() && done >= FAULTS.len() && begun.elapsed() > span / 3 {
            early = Some(memory);
        }
        bed.disk.iter().for_each(SmallDisk::empty_log);
        bed.callers.go_on();
    }
    bed.callers.pause().await;
    bed.callers.is_over.store(true, Ordering::SeqCst);
    let late = bed.sidecar.resident();
    for called in &bed.callers.called {
        println!("{}: {:?}", called.name, called.book.counts());
    }
    let asked = [&bed.web, &bed.work, &bed.chat].map(|one| one.requests.load(Ordering::SeqCst));
    println!("requests that have reached web, work and chat: {asked:?}");
    let published = bed.callers.published.load(Ordering::SeqCst);
    println!("{done} faults, {published} messages, at most {slowest:.1?} until all was well");
    if let Some(early) = early {
        println!("{early} KiB after each fault once, {late} KiB at the end");
        let most = early + early / 5 + 8 * 1024;
        assert!(late <= most, "memory grows: {early} KiB, then {late} KiB");
    }
    assert!(bed.sidecar.end(), "it ends in order");
}
