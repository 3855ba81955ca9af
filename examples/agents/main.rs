//! An agent system during outages: supervised researcher actors use vector search, web search and a
//! knowledge graph. The services fail and run out of quota, and each call still gets an answer.
//!
//! `cargo run --example agents`
//!
//! The example needs no network: the services are the fakes of `breakerbox::agents::fakes`. The
//! knowledge graph is the official server if it is installed in the current folder
//! (`npm install @modelcontextprotocol/server-memory`), else a stand-in: a second process of this
//! program.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints its results"
)]

mod researcher;
mod services;

use std::error::Error;
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Fakes, Operation, memory};
use breakerbox::prelude::*;

use researcher::{Report, Research, Researcher};
use services::Services;

const TOPICS: [&str; 3] = ["circuit breakers", "supervisors", "bulkheads"];

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some(services::MEMORY_SERVER) {
        let file = std::env::var("MEMORY_FILE_PATH")?;
        memory::serve(
            std::io::stdin().lock(),
            std::io::stdout().lock(),
            file.as_ref(),
        )?;
        return Ok(());
    }
    actix::System::new().block_on(research())
}

async fn research() -> Result<(), Box<dyn Error>> {
    let fakes = Fakes::start().await?;
    let folder = tempfile::tempdir()?;
    let runtime = Runtime::start(services::settings()).await?;
    let services = Services::start(&runtime, &fakes, folder.path()).await?;

    // The supervisor replaces a researcher that panics; its address stays valid.
    let mut researchers = Vec::new();
    for number in 1..=TOPICS.len() {
        let own = services.clone();
        let child = Child::permanent(format!("researcher-{number}"), move || {
            Researcher::new(own.clone())
        });
        researchers.push(runtime.supervise(child).await?.addr());
    }
    let round = async |what: &str| -> Result<Vec<Report>, Box<dyn Error>> {
        println!("\n{what}");
        let asked = researchers.iter().zip(TOPICS).map(|(researcher, topic)| {
            let topic = topic.to_owned();
            researcher.send(Research { topic })
        });
        let mut reports = Vec::new();
        for asked in futures_util::future::join_all(asked).await {
            let report = asked?;
            println!("  {report}");
            reports.push(report);
        }
        Ok(reports)
    };

    let reports = round("Everything works:").await?;
    assert!(reports.iter().all(Report::is_primary));

    fakes.set(Operation::Embed, Some(FakeFault::internal()));
    fakes.set(Operation::CustomSearch, Some(FakeFault::QuotaOfTheDay));
    let reports = round("Embeddings fail, and Google's queries of the day are used up:").await?;
    assert!(reports.iter().all(Report::is_complete));
    assert!(
        reports
            .iter()
            .all(|report| report.memories.is_from("fallback:local_index"))
    );
    assert!(
        reports
            .iter()
            .all(|report| report.pages.is_from("fallback:web_brave"))
    );

    fakes.set(Operation::Embed, None);
    // The breaker of the embeddings admits one probe, and closes when the probe succeeds. The quota
    // is used up until tomorrow.
    tokio::time::sleep(services::RECOVERY + Duration::from_millis(100)).await;
    assert!(services.vector.embed("is it back").await?.is_primary());
    let reports = round("Embeddings work again, the quota stays used up:").await?;
    assert!(
        reports
            .iter()
            .all(|report| report.memories.is_from("primary"))
    );
    let asked = fakes.calls(Operation::CustomSearch);
    println!("\nGoogle's web search was asked {asked} times in all, and nobody waited for it.");

    let known = services.graph.read_graph().await?.value.entities.len();
    println!("The knowledge graph knows {known} topics.\n");
    assert_eq!(known, TOPICS.len());
    for status in runtime.statuses() {
        let totals = status.totals;
        println!(
            "{:<16} {:>3} calls, {:>3} by itself, {:>3} by fallbacks, {}",
            status.name, totals.submitted, totals.primary, totals.fallback, status.health
        );
    }
    runtime.shutdown().await;
    Ok(())
}
