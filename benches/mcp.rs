//! The cost of the gateway in front of an MCP server: `cargo bench --bench mcp`.
//!
//! One caller calls a tool of a server that echoes, over standard input and output, and through
//! `breakerbox serve` over HTTP, in turn. The measure is the difference of the medians within a
//! round. Nothing is bound to a core: caller, sidecar and server are one after another at work.
//!
//! `BREAKERBOX_BENCH_BEFORE` names an earlier binary, which takes part as `before`.

#![allow(clippy::print_stdout, reason = "the table is the result")]

#[path = "mcp/callers.rs"]
mod callers;

use std::io::{self, Write as _};

use callers::{Direct, Sidecar};
use serde_json::{Value, json};

const ROUNDS: usize = 11;
/// Calls of a round that are measured, after some that are not.
const CALLS: usize = 1_000;
const WARM_UP: usize = 100;
/// The budgets: milliseconds that the gateway adds to the median, and MiB with one server.
const BUDGETS: (f64, f64) = (0.3, 25.0);

/// Sends a request to the server by one way, and returns its answer.
type ServerCall = Box<dyn FnMut(&str) -> io::Result<String>>;

/// A way to the server, and its figures.
struct Line {
    name: &'static str,
    call: ServerCall,
    /// The quantiles of each round.
    ///
    /// # Units   Microseconds.
    rounds: Vec<[f64; 3]>,
}

const QUANTILES: [(&str, usize); 3] = [("p50", 500), ("p90", 900), ("p99", 990)];

fn request(id: usize) -> String {
    let params = json!({ "name": "echo", "arguments": { "message": "the message of the bench" } });
    let asked = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    asked.to_string()
}

impl Line {
    fn new(name: &'static str, call: impl FnMut(&str) -> io::Result<String> + 'static) -> Self {
        Self {
            name,
            call: Box::new(call),
            rounds: Vec::new(),
        }
    }

    fn sample(&mut self) -> io::Result<()> {
        let mut took = Vec::new();
        for id in 0..WARM_UP + CALLS {
            let request = request(id);
            let begun = quanta::Instant::now();
            let answer = (self.call)(&request)?;
            let passed = begun.elapsed();
            if !answer.contains("the message of the bench") {
                return Err(io::Error::other(format!("{}: {answer}", self.name)));
            }
            if id >= WARM_UP {
                took.push(passed);
            }
        }
        took.sort_unstable();
        let micros = |share: usize| {
            let at = took.get(took.len() * share / 1_000);
            at.map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
        };
        self.rounds.push(QUANTILES.map(|(_, share)| micros(share)));
        Ok(())
    }

    fn print(&self) {
        let columns = [0, 1, 2].map(|column| {
            let of = self.rounds.iter().map(|round| round[column]);
            format!("{:>10.0}", median(of.collect()))
        });
        println!("{:<24}{}", self.name, columns.concat());
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The server: answers each request by one line.
fn echo() -> io::Result<()> {
    let mut out = io::stdout();
    for line in io::stdin().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let id = &asked["id"];
        if id.is_null() {
            continue;
        }
        let result = match asked["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "echo", "version": "1" },
            }),
            Some("tools/list") => json!({ "tools": [{
                "name": "echo",
                "inputSchema": { "type": "object" },
                "annotations": { "readOnlyHint": true },
            }] }),
            Some("tools/call") => {
                let text = &asked["params"]["arguments"]["message"];
                json!({ "content": [{ "type": "text", "text": text }] })
            }
            Some("ping") => json!({}),
            _ => {
                let error = json!({ "code": -32601, "message": "unknown method" });
                writeln!(
                    out,
                    "{}",
                    json!({ "jsonrpc": "2.0", "id": id, "error": error })
                )?;
                continue;
            }
        };
        writeln!(
            out,
            "{}",
            json!({ "jsonrpc": "2.0", "id": id, "result": result })
        )?;
    }
    Ok(())
}

fn say(what: &str, figure: f64, budget: f64) {
    let verdict = if figure <= budget { "holds" } else { "MISSED" };
    println!("{what}: {figure:.3} (<= {budget:.1}) {verdict}");
}

fn compare() -> io::Result<()> {
    let mut programs = vec![("breakerbox", env!("CARGO_BIN_EXE_breakerbox").to_owned())];
    if let Ok(before) = std::env::var("BREAKERBOX_BENCH_BEFORE") {
        programs.push(("before", before));
    }
    let mut direct = Direct::start()?;
    let mut lines = vec![Line::new("direct", move |request| direct.call(request))];
    let mut sidecars = Vec::new();
    for (name, program) in &programs {
        let sidecar = Sidecar::start(program)?;
        let mut caller = sidecar.connect(&request(0))?;
        let call = move |request: &str| caller.call(request);
        lines.push(Line::new(name, call));
        sidecars.push(sidecar);
    }
    let idle: Vec<_> = sidecars.iter().map(Sidecar::memory).collect();
    for round in 0..ROUNDS {
        for step in 0..lines.len() {
            let index = (round + step) % lines.len();
            lines[index].sample()?;
        }
    }
    let heads = QUANTILES.map(|(name, _)| format!("{name:>10}"));
    println!("{:<24}{}", "a call, microseconds", heads.concat());
    lines.iter().for_each(Line::print);
    for (index, (name, _)) in programs.iter().enumerate() {
        let (plain, through) = (&lines[0].rounds, &lines[index + 1].rounds);
        let added = plain.iter().zip(through);
        let added = added.map(|(plain, through)| (through[0] - plain[0]) / 1e3);
        println!();
        let what = format!("{name}: added to the median, ms");
        say(&what, median(added.collect()), BUDGETS.0);
        let what = format!("{name}: memory with one server, MiB");
        say(&what, idle[index].all, BUDGETS.1);
        let calls = ROUNDS * (WARM_UP + CALLS);
        let what = format!("{name}: memory after {calls} calls, MiB");
        let now = sidecars[index].memory();
        say(&what, now.all, BUDGETS.1);
        println!(
            "{name}: of which without its code, MiB: {:.1}",
            now.without_code
        );
    }
    Ok(())
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(callers::ECHO) {
        return echo();
    }
    compare()
}
