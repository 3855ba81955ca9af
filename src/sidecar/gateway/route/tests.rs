//! The order of the changes of a reload.

use std::cell::Cell;

use super::*;
use crate::RuntimeSettings;

#[tokio::test]
async fn mcp_6_callers_are_checked_anew_before_another_server_is_asked() {
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let (tracing, budget) = (Tracing::default(), BufferBudget::new(1 << 20));
    let shared = RouteShared {
        threads: 1,
        tracing: &tracing,
        budget: &budget,
    };
    let config = DependencyConfig::default();
    let first = (&config, "http://127.0.0.1:1/");
    let former = HttpRoute::start(&runtime, "web", first, shared, false);
    let former = former.await.unwrap();
    let asked = || Arc::clone(&former.of_workers.load().target);
    let checked = Cell::new(0);
    let checks = || {
        assert!(Arc::ptr_eq(&asked(), &former.target), "too early");
        checked.set(checked.get() + 1);
    };
    // What cannot be used changes nothing.
    let mut silent = config.clone();
    silent.settings.fallback_only = true;
    let other = "http://127.0.0.1:2/";
    let refused = former.follow(&runtime, (&silent, other), shared, &checks);
    assert!(refused.is_err());
    assert!(Arc::ptr_eq(&asked(), &former.target));
    assert_eq!(checked.get(), 0);
    let changed = former.follow(&runtime, (&config, other), shared, &checks);
    let changed = changed.unwrap().expect("another server");
    assert!(Arc::ptr_eq(&asked(), &changed.target));
    assert_eq!(checked.get(), 1);
    runtime.shutdown().await;
}
