//! The `#[protected]` attribute: functions that are calls.

mod closures;

mod fallbacks;

mod names;

mod repeats;

mod same_as_run;

mod scopes;

mod shapes;

use breakerbox_actors::testing::TestRuntime;
use breakerbox_actors::{Client, Closures};
use breakerbox_policy::DependencySettings;

/// Starts a dependency without workers.
async fn start(
    runtime: &TestRuntime,
    name: &str,
    configure: impl FnOnce(&mut DependencySettings),
) -> Client<Closures> {
    let builder = runtime.dependency(name).configure(configure);
    builder.start().await.expect("it starts")
}
