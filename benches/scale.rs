//! The growth of costs with the number of dependencies and of callers: `cargo bench --bench scale`.
//!
//! Each number of dependencies has a process of its own, so that none finds memory that an earlier
//! one has freed. A curve's exponent is the slope of a straight line through the logarithms: 1 for a
//! cost in proportion to the number, 0 for one that does not grow. Exponents hold without
//! optimization too, which takes minutes less to build: `cargo bench --profile dev --bench scale`.

#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::process::Command;

use axum::body::Body;
use axum::http::Request;
use breakerbox::admin::Admin;
use breakerbox::prelude::*;
use http_body_util::BodyExt as _;
use quanta::Instant;
use tower::ServiceExt as _;

/// Set in the process of one number of dependencies.
const MEASURED: &str = "BREAKERBOX_SCALE_DEPENDENCIES";
/// Numbers of dependencies.
const DEPENDENCIES: [u32; 7] = [10, 30, 100, 300, 1_000, 3_000, 10_000];
/// Numbers of callers of one dependency.
const CALLERS: [u32; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];
/// Calls of which the duration of one is taken.
const CALLS: u32 = 16_384;
/// Runs of which the fastest counts.
const RUNS: usize = 5;

/// The costs that a process of so many dependencies prints, in this order, with their units.
const COSTS: [&str; 6] = [
    "start, ms",
    "memory, KiB",
    "ask, us",
    "scrape, ms",
    "scrape, KB",
    "stop, ms",
];

struct Echo;

impl Dependency for Echo {
    type Request = u32;
    type Response = u32;
    type Error = Infallible;

    async fn call(&self, request: u32, _: &CallContext) -> Result<u32, Infallible> {
        Ok(black_box(request))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(count) = std::env::var(MEASURED) {
        let count = count.parse()?;
        let costs = on_system(of_dependencies(count))?;
        println!("{}", costs.map(|cost| cost.to_string()).join(" "));
        return Ok(());
    }
    let mut costs = Vec::new();
    for count in DEPENDENCIES {
        costs.push(measure(count)?);
    }
    print("dependencies", &DEPENDENCIES, &COSTS, &costs);
    let mut costs = Vec::new();
    for count in CALLERS {
        costs.push([on_system(of_callers(count))?]);
    }
    print("callers", &CALLERS, &["ask, us"], &costs);
    Ok(())
}

/// Runs a future in a task of an actix system, as a program does.
fn on_system<T: 'static>(
    work: impl Future<Output = Result<T, Box<dyn Error>>> + 'static,
) -> Result<T, Box<dyn Error>> {
    let system = breakerbox::actix::System::new();
    system.block_on(async move { tokio::task::spawn_local(work).await? })
}

/// Measures in a process of its own.
fn measure(count: u32) -> Result<[f64; COSTS.len()], Box<dyn Error>> {
    let run = Command::new(std::env::current_exe()?)
        .env(MEASURED, count.to_string())
        .output()?;
    let said = String::from_utf8(run.stdout)?;
    let costs: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
    costs?.try_into().map_err(|_| {
        let log = String::from_utf8_lossy(&run.stderr);
        format!("{count} dependencies: {said:?}\n{log}").into()
    })
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

/// Starts so many dependencies, calls each in turn, scrapes the metrics, and stops.
async fn of_dependencies(count: u32) -> Result<[f64; COSTS.len()], Box<dyn Error>> {
    let settings = Settings::default();
    let runtime = Runtime::start(settings.clone()).await?;
    let (before, begun) = (resident()?, Instant::now());
    let mut clients = Vec::new();
    for number in 0..count {
        let starting = runtime.dependency(format!("service-{number}"));
        clients.push(starting.workers(|| Echo).start().await?);
    }
    let start = millis(begun);
    let memory = resident()? - before;
    let mut ask = f64::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        for (client, number) in clients.iter().cycle().zip(0..CALLS) {
            black_box(client.ask(number).await?);
        }
        ask = ask.min(millis(begun) * 1e3 / f64::from(CALLS));
    }
    let admin = Admin::new(runtime.clone(), &settings);
    let (mut scrape, mut length) = (f64::MAX, 0);
    for _ in 0..RUNS {
        let request = Request::get("/metrics")
            .header("host", "localhost")
            .body(Body::empty())?;
        let begun = Instant::now();
        let answer = admin.router().oneshot(request).await?;
        if answer.status() != 200 {
            return Err(format!("a scrape is answered with {}", answer.status()).into());
        }
        length = answer.into_body().collect().await?.to_bytes().len();
        scrape = scrape.min(millis(begun));
    }
    let begun = Instant::now();
    runtime.shutdown().await;
    let stop = millis(begun);
    Ok([start, memory, ask, scrape, length as f64 / 1e3, stop])
}

/// Returns the microseconds of one call, with so many callers of one dependency at once.
async fn of_callers(count: u32) -> Result<f64, Box<dyn Error>> {
    let runtime = Runtime::start(RuntimeSettings::default()).await?;
    let starting = runtime.dependency("service").configure(|settings| {
        settings.bulkhead.max_concurrent = 4_096.try_into().expect("not zero");
    });
    let client = starting.workers(|| Echo).start().await?;
    let mut ask = f64::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let callers: Vec<_> = (0..count)
            .map(|_| {
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    for number in 0..CALLS / count {
                        black_box(client.ask(number).await).expect("an answer");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await?;
        }
        ask = ask.min(millis(begun) * 1e3 / f64::from(CALLS));
    }
    runtime.shutdown().await;
    Ok(ask)
}

/// Prints a row for each number, and the exponents of the columns.
fn print<const N: usize>(of: &str, counts: &[u32], names: &[&str; N], costs: &[[f64; N]]) {
    let head: String = names.iter().map(|name| format!("{name:>14}")).collect();
    println!("\n{of:<14}{head}");
    for (count, costs) in counts.iter().zip(costs) {
        let row: String = costs.iter().map(|cost| format!("{cost:>14.2}")).collect();
        println!("{count:<14}{row}");
    }
    let row: String = (0..N)
        .map(|column| {
            let points = counts.iter().zip(costs);
            let points = points.map(|(count, costs)| (f64::from(*count), costs[column]));
            format!("{:>14.2}", exponent(&points.collect::<Vec<_>>()))
        })
        .collect();
    println!("{:<14}{row}", "exponent");
}

/// Returns the slope of the straight line that fits the logarithms best.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs = points.iter().map(|(x, y)| (x.ln(), y.max(1e-9).ln()));
    let logs: Vec<_> = logs.collect();
    let count = logs.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| logs.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let square: f64 = logs.iter().map(|point| (point.0 - x).powi(2)).sum();
    both / square
}
