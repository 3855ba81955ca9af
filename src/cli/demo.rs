//! `breakerbox demo`: three simulated dependencies break one after the other, and all recover.
//!
//! Sockets, workers and crashes are real; only the faults are simulated. The demo checks itself: it
//! fails if the counters miss a call, or if a dependency did not recover.

mod service;

mod agent;

mod servers;

mod script;

mod timeline;

mod summary;

pub(crate) mod research;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breakerbox::config::{ConfigError, DependencyConfig, FallbackKind};
use breakerbox::prelude::*;
use breakerbox::simulated::{SITES, Site};
use breakerbox::telemetry::{Format, Telemetry};
use breakerbox::{DependencyStatus, StartError};

use crate::cli::ExitReason;
use agent::{Agent, AgentContext, CallTally};
use script::Pace;
use servers::DemoServers;
use service::{LookupError, LookupResult, Question, ServiceAddress, ServiceConnection};
use timeline::Timeline;

/// Pace of about 20 seconds.
const USUAL: Pace = Pace {
    calm: Duration::from_millis(1500),
    outage: Duration::from_millis(3200),
    recovery_timeout: None,
    about: "20",
};

/// Pace of about 5 seconds.
const FAST: Pace = Pace {
    calm: Duration::from_millis(200),
    outage: Duration::from_millis(450),
    recovery_timeout: Some("300ms"),
    about: "5",
};

/// The dependency with the panicking workers.
const CRASHING: &str = "knowledge_graph";
const AGENTS: u32 = 4;
/// Pause of an agent between two rounds.
const ROUND: Duration = Duration::from_millis(50);
/// Length of one timeline with `--stay`. It bounds the number of remembered events.
const WATCH: Duration = Duration::from_secs(3600);
const TOKEN: &str = "BREAKERBOX__ADMIN__TOKEN";
/// Time limit for the last calls; each has a much earlier deadline.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// Reason why the demo could not start.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the demo's own configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    #[error("a server on 127.0.0.1 cannot be started: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Admin(#[from] breakerbox::admin::ServeError),
    #[error(transparent)]
    Gateway(#[from] breakerbox::gateway::AddError),
    #[error("config/demo.toml gives {name} a fallback that the demo cannot make: {given}")]
    Fallback { name: &'static str, given: String },
}

/// The running parts of the demo.
struct DemoRuntime {
    sites: Vec<Site>,
    runtime: Runtime,
    desk: AgentContext,
    doors: DemoServers,
}

/// Scenarios of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Three dependencies break one after the other, and all recover
    Outages,
    /// An agent system with fifty callers: a failing index, a killed server, an exhausted quota,
    /// and a broken configuration
    Agents,
}

/// Runs a scenario, with log output if `RUST_LOG` is set.
pub(crate) fn run(
    scenario: Scenario,
    fast: bool,
    stay: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    breakerbox::serve::forbid_inspection();
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("RUST_LOG")
        && let Err(error) = Telemetry::init(Format::Auto)
    {
        writeln!(err, "breakerbox: {error}")?;
        return Ok(ExitReason::WrongUse);
    }
    let colour = io::stdout().is_terminal() && !set("NO_COLOR");
    if scenario == Scenario::Agents {
        if stay {
            writeln!(err, "breakerbox: --stay is for the scenario outages only")?;
            return Ok(ExitReason::WrongUse);
        }
        let tempo = if fast {
            research::FAST
        } else {
            research::USUAL
        };
        return actix::System::new().block_on(research::run(tempo, colour, out, err));
    }
    let pace = if fast { FAST } else { USUAL };
    actix::System::new().block_on(play(pace, stay, colour, out, err))
}

/// Runs the scenario of outages. Only a broken output is an error; all other errors are written to `err`.
async fn play(
    pace: Pace,
    stay: bool,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    hush_expected_panics();
    let stage = match start(pace).await {
        Ok(stage) => stage,
        Err(error) => {
            writeln!(err, "breakerbox: {error}")?;
            return Ok(ExitReason::Failed);
        }
    };
    introduce(&stage, pace, out)?;
    let mut timeline = Timeline::new(&stage.runtime, out, colour);
    let played = tokio::select! {
        played = perform(&stage, pace, &mut timeline) => Some(played?),
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => None,
            Err(error) => {
                writeln!(err, "breakerbox: signals cannot be received: {error}")?;
                return Ok(ExitReason::Failed);
            }
        }
    };
    if played.is_none() {
        timeline.say("demo", "interrupted")?;
    }
    let mut complaints = rest(&stage, &mut timeline).await?;
    let statuses = in_order(&stage.runtime);
    summary::write(&statuses, out)?;
    for (status, (_, ledger)) in statuses.iter().zip(stage.desk.services.iter()) {
        complaints.extend(summary::audit(status, ledger));
    }
    if let Some(played) = &played {
        complaints.extend_from_slice(played);
        for status in &statuses {
            complaints.extend(summary::review(status, status.name == CRASHING));
        }
    }
    for complaint in &complaints {
        writeln!(err, "breakerbox: {complaint}")?;
    }
    let submitted: u64 = statuses.iter().map(|one| one.totals.submitted).sum();
    let end = match (complaints.is_empty(), played) {
        (false, _) => ExitReason::Failed,
        (true, None) => ExitReason::Interrupted,
        (true, Some(_)) => {
            writeln!(
                out,
                "\nEvery one of {submitted} calls got exactly one answer; the runtime's books agree with the agents' own.\n\
                 Every dependency failed, opened, fell back and recovered."
            )?;
            ExitReason::Done
        }
    };
    if stay && end == ExitReason::Done {
        keep(&stage, colour, out, err).await?;
    }
    stage.doors.close().await;
    stage.runtime.shutdown().await;
    Ok(end)
}

/// Lets the agents continue, and prints events, until ctrl-c.
async fn keep(
    stage: &DemoRuntime,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\nThe agents go on, until ctrl-c:\n")?;
    stage.doors.write(out)?;
    if let Some(site) = stage.sites.first() {
        let url = site.url();
        writeln!(
            out,
            "\nTo break one: curl -X PUT '{url}/fault?is=fails&for=20s'\n"
        )?;
    }
    out.flush()?;
    stage.desk.at_rest.store(false, Ordering::Release);
    let watch = async {
        loop {
            let mut timeline = Timeline::new(&stage.runtime, out, colour);
            if let Err(error) = timeline.pass(WATCH).await {
                return error;
            }
        }
    };
    tokio::select! {
        error = watch => Err(error),
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => Ok(()),
            Err(error) => writeln!(err, "breakerbox: signals cannot be received: {error}"),
        }
    }
}

/// Runs the agents and the script concurrently.
async fn perform(
    stage: &DemoRuntime,
    pace: Pace,
    timeline: &mut Timeline<'_>,
) -> io::Result<Vec<String>> {
    for number in 1..=AGENTS {
        let desk = stage.desk.clone();
        let agent = Child::permanent(format!("agent-{number}"), move || {
            Agent::new(number, desk.clone())
        });
        if let Err(error) = stage.runtime.supervise(agent).await {
            return Ok(vec![error.to_string()]);
        }
    }
    script::play(&stage.runtime, &stage.sites, pace, timeline).await
}

/// Pauses the agents, and waits for the last calls.
async fn rest(stage: &DemoRuntime, timeline: &mut Timeline<'_>) -> io::Result<Vec<String>> {
    stage.desk.at_rest.store(true, Ordering::Release);
    timeline.say("demo", "the agents rest; the last calls end")?;
    let runtime = &stage.runtime;
    let asked = |name: &str| {
        let mut services = stage.desk.services.iter();
        let found = services.find(|(client, _)| client.name() == name);
        found.map_or(0, |(_, ledger)| ledger.asked.load(Ordering::Acquire))
    };
    let ended = |_: &Timeline<'_>| {
        let mut statuses = in_order(runtime).into_iter();
        statuses.all(|one| one.totals.ended() == asked(&one.name))
    };
    let mut complaints = Vec::new();
    if !timeline.until(LAST_CALLS, ended).await? {
        let pending: Vec<String> = in_order(runtime)
            .iter()
            .map(|one| format!("{}: {}", one.name, one.totals.in_flight()))
            .collect();
        let pending = pending.join(", ");
        complaints.push(format!("calls are pending after {LAST_CALLS:?}: {pending}"));
    }
    Ok(complaints)
}

/// Returns the status of the dependencies, in the order of the scenes.
fn in_order(runtime: &Runtime) -> Vec<DependencyStatus> {
    let names = SITES.iter().map(|(name, _)| *name);
    names.filter_map(|name| runtime.status(name)).collect()
}

fn introduce(stage: &DemoRuntime, pace: Pace, out: &mut dyn Write) -> io::Result<()> {
    let about = pace.about;
    writeln!(
        out,
        "Three simulated dependencies, {AGENTS} agents, about {about} seconds.\n"
    )?;
    for (site, (client, _)) in stage.sites.iter().zip(stage.desk.services.iter()) {
        let fallbacks: Vec<String> = client
            .status()
            .fallbacks
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let (name, address) = (&site.name, site.address);
        let fallbacks = fallbacks.join(", then ");
        writeln!(
            out,
            "  {name:<16} http://{address:<16} falls back to {fallbacks}"
        )?;
    }
    stage.doors.write(out)?;
    writeln!(out)
}

async fn start(pace: Pace) -> Result<DemoRuntime, DemoError> {
    let settings = settings(pace)?;
    let runtime = Runtime::start(settings.clone()).await?;
    let (mut sites, mut services) = (Vec::new(), Vec::new());
    for (name, key) in SITES {
        let config = settings.dependencies.get(name).cloned().unwrap_or_default();
        let site = Site::start(name, key).await?;
        let place = ServiceAddress {
            url: site.url(),
            key,
            trusting: name == CRASHING,
            connect: config.settings.timeout.connect,
            classify: Arc::new(config.settings.classify.clone()),
        };
        let client = service(&runtime, name, &config, place).await?;
        sites.push(site);
        services.push((client, CallTally::default()));
    }
    let doors = DemoServers::open(&runtime, &settings, &sites).await?;
    let desk = AgentContext {
        services: services.into(),
        pace: ROUND,
        at_rest: Arc::new(AtomicBool::new(false)),
    };
    Ok(DemoRuntime {
        sites,
        runtime,
        desk,
        doors,
    })
}

/// Loads the configuration files that ship, and nothing of the machine but the admin token.
fn settings(pace: Pace) -> Result<Settings, ConfigError> {
    let mut loader = Settings::loader()
        .bare()
        .toml(include_str!("../../config/default.toml"))
        .toml(include_str!("../../config/demo.toml"))
        .flag("gateway.bind", "127.0.0.1:0");
    let token = std::env::var(TOKEN).ok();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        loader = loader.flag("admin.token", token);
    }
    if let Some(timeout) = pace.recovery_timeout {
        for (name, _) in SITES {
            let key = format!("dependencies.{name}.breaker.recovery_timeout");
            loader = loader.flag(key, timeout);
        }
    }
    loader.load()
}

/// Starts a dependency with its breaker, its workers and its configured fallbacks.
async fn service(
    runtime: &Runtime,
    name: &'static str,
    config: &DependencyConfig,
    place: ServiceAddress,
) -> Result<Client<ServiceConnection>, DemoError> {
    let key = place.key;
    let mut builder = runtime
        .dependency(name)
        .workers(move || ServiceConnection::connect(place.clone()));
    for fallback in &config.fallbacks {
        builder = match &fallback.kind {
            FallbackKind::StaleCache {
                max_age,
                max_entries,
                ..
            } => {
                let max_entries = usize::try_from(max_entries.get()).unwrap_or(usize::MAX);
                builder.fallback(StaleCache::new(*max_age, max_entries))
            }
            FallbackKind::Fixed { body, .. } => {
                let body = serde_json::from_str(body).ok();
                let found = body.and_then(|body| service::found(&body, key));
                let given = || format!("{:?}", fallback.kind);
                let found = found.ok_or_else(|| DemoError::Fallback {
                    name,
                    given: given(),
                })?;
                builder.fallback(Fixed(found))
            }
            other => {
                let given = format!("{other:?}");
                return Err(DemoError::Fallback { name, given });
            }
        };
    }
    if name == "web_search" {
        builder = builder.fallback_rule(FallbackRule::new(own_notes).named("own_notes"));
    }
    Ok(builder.start().await?)
}

/// A fallback that is a function: the agents' own notes, without the web.
fn own_notes(
    question: Question,
    _: &CallError<LookupError>,
) -> impl Future<Output = Result<LookupResult, LookupError>> + Send + use<> {
    let note = format!("own notes on {}", question.topic);
    std::future::ready(Ok(LookupResult(vec![note])))
}

/// Hides the demo's intended panics from the terminal; the timeline shows them. Any other panic is
/// reported as usual.
fn hush_expected_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location();
        if place.is_none_or(|place| place.file() != service::FILE) {
            before(panic);
        }
    }));
}
