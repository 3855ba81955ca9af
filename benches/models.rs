//! The cost of streams of language models in the gateway: `cargo bench --bench models`.
//!
//! The same provider stands behind `kind = "http"` and `kind = "model"`, in one gateway, in turn. It
//! measures the CPU time of a stream of 20 events, the time that the gateway adds to the first content,
//! and a thousand streams of 50 tokens a second with their memory.
//!
//! `BREAKERBOX_BENCH_BINARY` names another binary in place of the one of this build.

#![allow(clippy::print_stdout, reason = "the table is the result")]

#[path = "models/load.rs"]
mod load;
#[path = "models/provider.rs"]
mod provider;
#[path = "models/sidecar.rs"]
mod sidecar;

use std::io;
use std::time::Duration;

use load::ask;
use sidecar::Sidecar;

const ROUNDS: usize = 7;
/// Streams of a round, and how many of them go on at once.
const STREAMS: usize = 1_000;
const AT_ONCE: usize = 16;
const FIRST_TOKENS: usize = 500;
const MANY: usize = 1_000;
const MANY_FOR: Duration = Duration::from_secs(15);
/// The budgets: CPU as a multiple of `kind = "http"`, and milliseconds to the first content (p99).
const BUDGETS: (f64, f64) = (2.0, 5.0);

/// The ways to the provider: their names, and their paths at the gateway.
const WAYS: [(&str, &str); 2] = [("http", "/web"), ("model", "/gpt")];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn quantile(sorted: &[Duration], share: usize) -> f64 {
    let at = sorted.get(sorted.len() * share / 1_000);
    at.map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> io::Result<()> {
    let provider = provider::start().await?;
    let sidecar = Sidecar::start(provider).await?;
    println!("provider and callers on all cores, one gateway thread\n");
    cpu_of_a_stream(&sidecar).await?;
    first_token(&sidecar, provider).await?;
    many(&sidecar).await
}

/// CPU time of the gateway for a stream of 20 events, by both kinds.
async fn cpu_of_a_stream(sidecar: &Sidecar) -> io::Result<()> {
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (at, (_, way)) in WAYS.iter().enumerate() {
            let path = format!("{way}/v1/chat/completions?at=once");
            let before = sidecar.cpu();
            let asked = (0..AT_ONCE).map(|_| async {
                for _ in 0..STREAMS / AT_ONCE {
                    ask(sidecar.address, &path).await?;
                }
                Ok::<_, io::Error>(())
            });
            futures_util::future::try_join_all(asked).await?;
            let streams = (STREAMS / AT_ONCE * AT_ONCE) as f64;
            // The first round makes the connections.
            if round > 0 {
                costs[at].push((sidecar.cpu() - before) * 1e6 / streams);
            }
        }
    }
    let ratios = costs[0].iter().zip(&costs[1]);
    let ratio = median(ratios.map(|(http, model)| model / http).collect());
    let [http, model] = costs.map(median);
    println!("CPU of a stream of 20 events: http {http:.0} µs, model {model:.0} µs");
    println!(
        "  model / http, median of the rounds: {ratio:.2} (budget {})\n",
        BUDGETS.0
    );
    Ok(())
}

/// Time to the first content, beside that of the provider itself.
async fn first_token(sidecar: &Sidecar, provider: std::net::SocketAddr) -> io::Result<()> {
    let ways = [
        ("direct", provider, "/v1/chat/completions?at=once"),
        ("http", sidecar.address, "/web/v1/chat/completions?at=once"),
        ("model", sidecar.address, "/gpt/v1/chat/completions?at=once"),
    ];
    let mut p99 = [0.0; 3];
    for (at, (name, address, path)) in ways.into_iter().enumerate() {
        let mut took = Vec::with_capacity(FIRST_TOKENS);
        for _ in 0..FIRST_TOKENS {
            took.push(ask(address, path).await?.first_content);
        }
        took.sort_unstable();
        p99[at] = quantile(&took, 990);
        let (half, most) = (quantile(&took, 500), p99[at]);
        println!("first content, {name}: p50 {half:.2} ms, p99 {most:.2} ms");
    }
    println!(
        "  added by the model, p99: {:.2} ms (budget {})\n",
        p99[2] - p99[0],
        BUDGETS.1
    );
    Ok(())
}

/// A thousand streams of 50 tokens a second.
async fn many(sidecar: &Sidecar) -> io::Result<()> {
    let path = format!("/gpt/v1/chat/completions?at=50&for={}", MANY_FOR.as_secs());
    let empty = sidecar.memory();
    let streams = (0..MANY).map(|_| ask(sidecar.address, &path));
    let watched = async {
        // Once all of them go on.
        tokio::time::sleep(MANY_FOR / 3).await;
        let (cpu, began) = (sidecar.cpu(), quanta::Instant::now());
        tokio::time::sleep(MANY_FOR / 3).await;
        let share = (sidecar.cpu() - cpu) / began.elapsed().as_secs_f64();
        (share, sidecar.memory())
    };
    let (answers, (share, memory)) = tokio::join!(futures_util::future::join_all(streams), watched);
    let whole = answers
        .iter()
        .filter(|answer| answer.as_ref().is_ok_and(|one| one.is_whole));
    println!(
        "{MANY} streams of 50 tokens a second: {} whole",
        whole.count()
    );
    println!(
        "  CPU {:.0} % of a core; memory {empty} MiB before, {memory} MiB with them",
        share * 100.0
    );
    Ok(())
}
