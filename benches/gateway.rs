//! The gateway compared with nginx and HAProxy: `cargo bench --bench gateway`.
//!
//! Every proxy runs in every round, alone on one core; callers and upstream share the other core.
//! The callers' core may saturate first, so the measure is the CPU time per request. A ratio is the
//! median over the rounds of (proxy / nginx in the same round).
//!
//! `BREAKERBOX_BENCH_BEFORE` names an earlier binary, which takes part as `before`.

#![allow(clippy::print_stdout, reason = "the table is the result")]

#[path = "gateway/load.rs"]
mod load;
#[path = "gateway/proxies.rs"]
mod proxies;

use std::io;
use std::time::Duration;

use load::Target;
use proxies::Proxy;

const ROUNDS: usize = 7;
const SAMPLE: Duration = Duration::from_millis(1_000);
const CONNECTIONS: usize = 32;
const MANY: usize = 1_000;

/// The measurements of one proxy, or of the upstream without a proxy.
struct Line {
    name: &'static str,
    target: Target,
    proxy: Option<usize>,
    /// Requests per second, by round.
    rates: Vec<f64>,
    /// Microseconds of CPU per request, by round.
    costs: Vec<f64>,
}

impl Line {
    fn new(name: &'static str, target: Target, proxy: Option<usize>) -> Self {
        Self {
            name,
            target,
            proxy,
            rates: Vec::new(),
            costs: Vec::new(),
        }
    }

    async fn sample(&mut self, proxies: &[Proxy]) -> Result<(), String> {
        let proxy = self.proxy.map(|index| &proxies[index]);
        let mark = || {
            let cpu = proxy.map_or(0, Proxy::cpu);
            (quanta::Instant::now(), cpu)
        };
        let driven = load::drive(self.target, CONNECTIONS, SAMPLE, mark).await;
        let (requests, begin, end) = driven.map_err(|error| format!("{}: {error}", self.name))?;
        let took = end.0.duration_since(begin.0);
        self.rates.push(requests as f64 / took.as_secs_f64());
        self.costs
            .push((end.1 - begin.1) as f64 / 1e3 / requests as f64);
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios within the same round.
fn ratio(case: &[f64], yardstick: &[f64]) -> f64 {
    let each = case.iter().zip(yardstick);
    median(&each.map(|(case, other)| case / other).collect::<Vec<_>>())
}

fn say(what: &str, figure: f64, budget: f64) {
    let verdict = if figure <= budget { "holds" } else { "MISSED" };
    println!("{what}: {figure:.2} (<= {budget:.2}) {verdict}");
}

/// Runs every case in every round, each round beginning with another case.
async fn rounds(lines: &mut [Line], proxies: &[Proxy]) -> Result<(), String> {
    for round in 0..ROUNDS {
        for step in 0..lines.len() {
            let index = (round + step) % lines.len();
            lines[index].sample(proxies).await?;
        }
    }
    Ok(())
}

fn of<'l>(lines: &'l [Line], name: &str) -> Option<&'l Line> {
    lines.iter().find(|line| line.name == name)
}

fn print(title: &str, lines: &[Line]) {
    let nginx = of(lines, "nginx");
    println!(
        "\n{title:<24} {:>10} {:>8} {:>16} {:>8}",
        "a second", "CPU us", "min .. max", "x nginx"
    );
    for line in lines {
        let (rate, cost) = (median(&line.rates), median(&line.costs));
        if line.proxy.is_none() {
            println!("{:<24} {rate:>10.0}", line.name);
            continue;
        }
        let low = line.costs.iter().copied().fold(f64::MAX, f64::min);
        let high = line.costs.iter().copied().fold(0.0, f64::max);
        let times = nginx.map_or(f64::NAN, |nginx| ratio(&line.costs, &nginx.costs));
        println!(
            "{:<24} {rate:>10.0} {cost:>8.1} {low:>7.1} .. {high:>5.1} {times:>8.2}",
            line.name
        );
    }
}

/// Starts the proxies that are installed.
fn start(
    folder: &std::path::Path,
    upstream: std::net::SocketAddr,
    dead: std::net::SocketAddr,
) -> io::Result<Vec<Proxy>> {
    let program = ("breakerbox", env!("CARGO_BIN_EXE_breakerbox"));
    let mut all = vec![proxies::ours(program, folder, upstream, dead)?];
    if let Ok(before) = std::env::var("BREAKERBOX_BENCH_BEFORE") {
        all.push(proxies::ours(("before", &before), folder, upstream, dead)?);
    }
    for (name, started) in [
        ("nginx", proxies::nginx(folder, upstream, dead)),
        ("haproxy", proxies::haproxy(folder, upstream, dead)),
    ] {
        match started {
            Ok(proxy) => all.push(proxy),
            Err(error) => println!("{name} is left out: {error}"),
        }
    }
    Ok(all)
}

/// Measures memory when idle, and under 1,000 connections that call without a pause.
async fn memory(lines: &[Line], proxies: &[Proxy], idle: &[f64]) -> Result<Vec<f64>, String> {
    println!("\n{:<24} {:>10} {:>8}", "memory, MiB", "idle", "busy");
    let mut busy = Vec::new();
    for line in lines {
        let Some(index) = line.proxy else { continue };
        let mark = || proxies[index].memory();
        let driven = load::drive(line.target, MANY, SAMPLE * 2, mark).await;
        let (_, _, end) = driven.map_err(|error| format!("{}: {error}", line.name))?;
        println!("{:<24} {:>10.1} {end:>8.1}", line.name, idle[index]);
        busy.push(end);
    }
    Ok(busy)
}

async fn compare() -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let folder = tempfile::tempdir().map_err(text)?;
    let upstream = load::upstream().await.map_err(text)?;
    let dead = proxies::unused().map_err(text)?;
    let proxies = start(folder.path(), upstream, dead).map_err(text)?;
    let at = |address, path, status| Target {
        address,
        path,
        status,
    };
    let mut served = vec![Line::new("direct", at(upstream, "/", 200), None)];
    let mut refused = Vec::new();
    for (index, proxy) in proxies.iter().enumerate() {
        let (up, down) = (
            at(proxy.address, "/web/", 200),
            at(proxy.address, "/dead/", proxy.refusal),
        );
        load::until_right(up).await?;
        load::until_right(down).await?;
        served.push(Line::new(proxy.name, up, Some(index)));
        refused.push(Line::new(proxy.name, down, Some(index)));
    }
    let idle: Vec<f64> = proxies.iter().map(Proxy::memory).collect();
    rounds(&mut served, &proxies).await?;
    print("32 connections", &served);
    rounds(&mut refused, &proxies).await?;
    print("refusals", &refused);
    let busy = memory(&served, &proxies, &idle).await?;
    println!();
    let costs = |lines, name| of(lines, name).map_or(&[][..], |line: &Line| &line.costs[..]);
    for (what, lines, budget) in [
        ("CPU a request / nginx", &served, 1.25),
        ("CPU a refusal / nginx", &refused, 1.0 / 0.95),
    ] {
        let nginx = costs(lines, "nginx");
        if nginx.is_empty() {
            println!("{what}: no nginx to compare with");
        } else {
            say(what, ratio(costs(lines, "breakerbox"), nginx), budget);
        }
    }
    say("idle, MiB", idle[0], 20.0);
    say("1,000 busy connections, MiB", busy[0], 80.0);
    Ok(())
}

fn main() -> Result<(), String> {
    // This process holds both ends of a thousand connections.
    rlimit::increase_nofile_limit(u64::MAX).map_err(|error| error.to_string())?;
    proxies::pin_self().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(compare())
}
