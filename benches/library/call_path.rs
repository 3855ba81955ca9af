//! Criterion's figures for each path and its yardstick: `cargo bench --bench call_path`.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(dead_code, reason = "the table uses the other cases")]

#[path = "support/cases.rs"]
mod cases;

use std::time::Duration;

use cases::Layers;
use criterion::{Criterion, criterion_group, criterion_main};

fn paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernel");
    group.bench_function("admit_record", |b| b.iter_custom(cases::kernel));
    group.finish();

    let mut group = criterion.benchmark_group("run");
    group.bench_function("refusal", |b| b.iter_custom(cases::refusal));
    group.bench_function("breaker_only", |b| {
        b.iter_custom(|n| cases::run_closed(Layers::BreakerOnly, n));
    });
    group.bench_function("every_layer", |b| {
        b.iter_custom(|n| cases::run_closed(Layers::All, n));
    });
    group.finish();

    let mut group = criterion.benchmark_group("ask");
    for callers in [1, 64, 1024] {
        group.bench_function(format!("every_layer/{callers}"), |b| {
            b.iter_custom(|n| cases::ask(Layers::All, callers, n));
        });
        group.bench_function(format!("yardstick_mpsc_oneshot/{callers}"), |b| {
            b.iter_custom(|n| cases::mpsc_oneshot(callers, n));
        });
    }
    group.bench_function("two_threads/64", |b| {
        b.iter_custom(|n| cases::ask_on_two_threads(64, n));
    });
    group.bench_function("call_message", |b| b.iter_custom(cases::call_message));
    group.bench_function("yardstick_actix_ask", |b| b.iter_custom(cases::actix_ask));
    group.bench_function("yardstick_two_asks", |b| {
        b.iter_custom(cases::two_actix_asks);
    });
    group.bench_function("yardstick_two_hops", |b| {
        b.iter_custom(cases::two_forwarded_hops);
    });
    group.finish();

    let mut group = criterion.benchmark_group("crash");
    group.sample_size(10);
    group.bench_function("crash_to_running", |b| {
        b.iter_custom(cases::crash_to_running);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    targets = paths
}
criterion_main!(benches);
