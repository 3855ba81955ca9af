//! `breakerbox replay`: simulation of recorded calls under other settings.
//!
//! It reads the whole trace before it evaluates any settings. It never starts a runtime.

mod machine;

mod report;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use breakerbox::config::ConfigError;
use breakerbox::policy::{BreakerSettings, Time};
use breakerbox::recorder::{Recording, Trace};
use breakerbox::{Settings, serve};
use breakerbox_actors::{did_you_mean, printable};

use crate::cli::{ExitReason, path};
use machine::Tape;
use report::{PlayedDependency, ReplayRun};

/// Arguments of `breakerbox replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The file that a recorder wrote
    #[arg(value_parser = path())]
    trace: PathBuf,
    /// The folder of the configuration [default: config, if it is there]
    #[arg(long, value_name = "DIR", value_parser = path())]
    config: Option<PathBuf>,
    /// The environment, such as production [default: $BREAKERBOX_ENV or development]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// The folder of a second configuration to compare with
    #[arg(long, value_name = "DIR", value_parser = path())]
    against: Option<PathBuf>,
    /// Only this dependency
    #[arg(long, value_name = "NAME")]
    dependency: Option<String>,
    /// Prints one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// A configuration with its label in the output.
struct CandidateSettings {
    label: String,
    settings: Settings,
}

/// Reads configurations and trace, replays the trace, and prints the results.
pub(crate) fn run(
    arguments: &ReplayArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let candidates = load_all(arguments, err)?;
    let trace = match Trace::read(&arguments.trace) {
        Ok(trace) => trace,
        Err(error) => {
            writeln!(err, "breakerbox: {error}")?;
            return Ok(ExitReason::WrongUse);
        }
    };
    let Some(candidates) = candidates else {
        return Ok(ExitReason::WrongUse);
    };
    let path = arguments.trace.display().to_string();
    let path = printable(&path);
    if trace.is_cut_off {
        writeln!(
            err,
            "breakerbox: {path}: the last line is incomplete and was left out"
        )?;
    }
    let only = arguments.dependency.as_ref();
    let wanted = |one: &&Recording| only.is_none_or(|name| *name == one.name);
    let recordings: Vec<&Recording> = trace.recordings.iter().filter(wanted).collect();
    if let (Some(name), true) = (only, recordings.is_empty()) {
        let known: Vec<&str> = trace.recordings.iter().map(|one| &*one.name).collect();
        let near = did_you_mean(name, known.iter().copied());
        let (near, known) = (printable(&near), known.join(", "));
        let (name, known) = (printable(name), printable(&known));
        writeln!(
            err,
            "breakerbox: {path}: it has no dependency {name}{near}, allowed: {known}"
        )?;
        return Ok(ExitReason::WrongUse);
    }
    let mut played = Vec::new();
    for recording in recordings {
        let name = &recording.name;
        for CandidateSettings { label, settings } in &candidates {
            if !settings.dependencies.contains_key(name) {
                let name = printable(name);
                writeln!(
                    err,
                    "breakerbox: {label} does not name {name}: it gets the defaults"
                )?;
            }
        }
        played.push(play(recording, &candidates, end_of(&trace)));
    }
    if arguments.json {
        report::write_json(&trace, &played, out)?;
    } else {
        report::write(&trace, &played, out)?;
    }
    Ok(ExitReason::Done)
}

/// Reads the configurations. Returns `None` if one is invalid, after printing all errors.
fn load_all(
    arguments: &ReplayArgs,
    err: &mut dyn Write,
) -> io::Result<Option<Vec<CandidateSettings>>> {
    let environment = arguments.env.as_deref();
    let mut loaded = vec![load(arguments.config.as_deref(), environment)];
    if let Some(dir) = &arguments.against {
        loaded.push(load(Some(dir), environment));
    }
    for error in loaded.iter().filter_map(|one| one.as_ref().err()) {
        writeln!(err, "breakerbox: {error}")?;
    }
    let usable: Result<Vec<CandidateSettings>, _> = loaded.into_iter().collect();
    Ok(usable.ok())
}

fn load(dir: Option<&Path>, environment: Option<&str>) -> Result<CandidateSettings, ConfigError> {
    let label = dir.map_or_else(|| "config".to_owned(), |dir| dir.display().to_string());
    let label = printable(&label).into_owned();
    let dir = dir.map(Path::to_owned);
    let settings = serve::loader(dir, environment.map(str::to_owned)).load()?;
    Ok(CandidateSettings { label, settings })
}

/// Returns the end of the last outcome of any dependency.
fn end_of(trace: &Trace) -> Time {
    let last = |one: &Recording| one.outcomes.last().map(|last| last.ended);
    let ends = trace.recordings.iter().filter_map(last);
    ends.max().unwrap_or_default()
}

/// Replays one dependency's calls under its recorded settings and under each candidate, until `end`.
fn play(recording: &Recording, candidates: &[CandidateSettings], end: Time) -> PlayedDependency {
    let tape = Tape::new(recording);
    let mut runs = Vec::new();
    if !recording.settings.is_empty() {
        runs.push(ReplayRun {
            label: "recorded".to_owned(),
            books: tape.play(&recording.settings, end),
        });
    }
    for candidate in candidates {
        let found = candidate.settings.dependencies.get(&recording.name);
        let breaker =
            found.map_or_else(BreakerSettings::default, |one| one.settings.breaker.clone());
        runs.push(ReplayRun {
            label: candidate.label.clone(),
            books: tape.play(&[(Time::ZERO, breaker)], end),
        });
    }
    PlayedDependency {
        name: recording.name.clone(),
        runs,
    }
}
