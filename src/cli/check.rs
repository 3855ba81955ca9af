//! `breakerbox check`: validates the configuration, and prints the values that are set with their layers.
//!
//! It starts nothing, and refuses what `serve` would refuse. The readers of the configuration mask
//! secrets.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use breakerbox::Settings;
use breakerbox::config::{EffectiveValue, Problem};
use breakerbox::policy::CountedNoun;
use breakerbox::serve::{self, RefusedConfig};
use breakerbox_actors::{did_you_mean, printable, printable_json};
use serde_json::{Value, json};

use crate::cli::{ConfigArgs, ExitReason};

/// Arguments of `breakerbox check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Dependency of which every value is shown, set or not
    name: Option<String>,
    /// Shows every value, those of the defaults too
    #[arg(long)]
    all: bool,
    /// Prints one JSON object: the values with their layers, and the warnings or the problems
    #[arg(long)]
    json: bool,
    /// Checks it for a program with its own code: a dependency needs no kind
    #[arg(long, conflicts_with = "simulate")]
    library: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Reads and checks the layers as `serve` does, and prints the result.
pub(crate) fn run(
    arguments: CheckArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let CheckArgs {
        name,
        all,
        json,
        library,
        config,
    } = arguments;
    let settings = match serve::check(config.choice(), library) {
        Ok(settings) => settings,
        Err(refused) => {
            match json {
                true => writeln!(out, "{}", refused_json(&refused))?,
                false => write_refused(&refused, err)?,
            }
            return Ok(ExitReason::WrongUse);
        }
    };
    if let Some(name) = name
        .as_deref()
        .filter(|name| !settings.dependencies.contains_key(*name))
    {
        writeln!(err, "breakerbox: {}", unknown_name(name, &settings))?;
        return Ok(ExitReason::WrongUse);
    }
    let begin = name.as_ref().map(|name| format!("dependencies.{name}."));
    let is_wanted = |one: &&EffectiveValue| match &begin {
        Some(begin) => one.key.starts_with(begin.as_str()),
        None => all || !one.is_default,
    };
    let values: Vec<&EffectiveValue> = settings.effective().iter().filter(is_wanted).collect();
    if json {
        writeln!(out, "{}", valid_json(&settings, &values))?;
        return Ok(ExitReason::Done);
    }
    let origins = ConfigOrigins(&settings.environment, settings.files());
    write!(out, "{origins}")?;
    write_values(&values, out)?;
    for warning in settings.warnings() {
        writeln!(err, "breakerbox: warning: {warning}")?;
    }
    for OtherWarning { key, text, .. } in other_warnings(&settings) {
        writeln!(err, "breakerbox: warning: {key}: {text}")?;
    }
    let every = settings.effective();
    let set = every.iter().filter(|one| !one.is_default).count();
    let rest = match values.len() < every.len() && name.is_none() {
        true => "; --all shows every one",
        false => "",
    };
    let count = CountedNoun(settings.dependencies.len() as u64, "dependency");
    writeln!(
        out,
        "the configuration is valid: {count}, {set} of {} values set{rest}",
        every.len(),
    )?;
    Ok(ExitReason::Done)
}

/// A warning that no layer of the configuration is the place of.
struct OtherWarning {
    key: &'static str,
    text: String,
    origin: &'static str,
}

/// Returns the warnings that concern no value.
fn other_warnings(settings: &Settings) -> Vec<OtherWarning> {
    let filter = serve::doubtful_filter().map(|text| OtherWarning {
        key: "RUST_LOG",
        text: text.trim_start_matches("RUST_LOG: ").to_owned(),
        origin: "environment variable RUST_LOG",
    });
    // EDGE-6: an empty file is no error here, but is hardly meant.
    let empty = settings.dependencies.is_empty().then(|| OtherWarning {
        key: "dependencies",
        text: "there is none, so nothing can be called; a running sidecar refuses a reload to it, \
               unless reload.allow_empty = true"
            .to_owned(),
        origin: "the configuration",
    });
    filter.into_iter().chain(empty).collect()
}

fn write_refused(refused: &RefusedConfig, err: &mut dyn Write) -> io::Result<()> {
    writeln!(err, "breakerbox: {refused}")?;
    let sources = &refused.sources;
    let files: Vec<PathBuf> = sources.found().map(Path::to_owned).collect();
    write!(err, "{}", ConfigOrigins(&sources.environment, &files))
}

/// Returns true for a folder with a configuration. Programs have folders of the names of services too.
fn is_config(folder: &str) -> bool {
    Path::new(folder).join("default.toml").is_file()
}

/// Returns the message about a dependency that is not configured.
fn unknown_name(name: &str, settings: &Settings) -> String {
    if name.contains(['/', '\\']) || name.ends_with(".toml") || is_config(name) {
        let given = printable(name);
        return format!(
            "{given} is no name of a dependency, allowed: --config DIR for the folder with the file \
             default.toml"
        );
    }
    let known: Vec<&str> = settings.dependencies.keys().map(String::as_str).collect();
    let near = did_you_mean(name, known.iter().copied());
    let (name, known) = (printable(name), known.join(", "));
    format!(
        "there is no dependency {name}{near}, allowed: {}",
        printable(&known)
    )
}

fn refused_json(refused: &RefusedConfig) -> String {
    let problem = |one: &Problem| {
        json!({
            "key": one.key,
            "given": one.given,
            "reason": one.reason,
            "allowed": one.allowed,
            "origin": one.origin,
            "excerpt": one.excerpt,
            "text": one.to_string(),
        })
    };
    let mut problems: Vec<Value> = refused.problems.iter().map(problem).collect();
    if problems.is_empty() {
        // What can be read and cannot be served has its place in its text.
        let text = refused.to_string();
        let lines = text.lines();
        let several = text.contains("\n  ");
        let lines = lines.skip(usize::from(several)).map(str::trim);
        problems.extend(lines.map(|line| json!({ "text": line })));
    }
    let files: Vec<String> = refused
        .sources
        .found()
        .map(|file| file.display().to_string())
        .collect();
    let object = json!({
        "valid": false,
        "environment": refused.sources.environment,
        "files": files,
        "problems": problems,
    });
    printable_json(&object.to_string()).into_owned()
}

fn valid_json(settings: &Settings, values: &[&EffectiveValue]) -> String {
    let values = values.iter().map(|one| {
        json!({
            "key": one.key,
            "value": one.value,
            "origin": one.origin,
            "default": one.is_default,
        })
    });
    let warnings = settings
        .warnings()
        .iter()
        .map(|one| json!({ "key": one.key, "text": one.text, "origin": one.origin }));
    let others = other_warnings(settings).into_iter();
    let warnings = warnings
        .chain(others.map(|one| json!({ "key": one.key, "text": one.text, "origin": one.origin })));
    let files = settings.files().iter();
    let files = files.map(|file| file.display().to_string());
    let object = json!({
        "valid": true,
        "environment": settings.environment,
        "files": files.collect::<Vec<_>>(),
        "dependencies": settings.dependencies.keys().collect::<Vec<_>>(),
        "values": values.collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
    });
    printable_json(&object.to_string()).into_owned()
}

/// The environment and the files, one a line.
struct ConfigOrigins<'a>(&'a str, &'a [PathBuf]);

impl fmt::Display for ConfigOrigins<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(environment, files) = self;
        writeln!(out, "environment {}", printable(environment))?;
        if files.is_empty() {
            writeln!(out, "no file read")?;
        }
        let mut files = files.iter();
        files.try_for_each(|file| {
            let file = file.display().to_string();
            writeln!(out, "read {}", printable(&file))
        })
    }
}

fn write_values(values: &[&EffectiveValue], out: &mut dyn Write) -> io::Result<()> {
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).min(60);
    let keys = longest(&mut values.iter().map(|one| one.key.chars().count()));
    let texts = longest(&mut values.iter().map(|one| one.value.chars().count()));
    for one in values {
        let (key, value) = (printable(&one.key), printable(&one.value));
        let origin = printable(&one.origin);
        writeln!(out, "{key:keys$} = {value:texts$}  # {origin}")?;
    }
    Ok(())
}
