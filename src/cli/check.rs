//! `breakerbox check`: validates the configuration, and prints the origin of each value.
//!
//! It starts nothing, and refuses what `serve` would refuse. The readers of the configuration mask
//! secrets.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use breakerbox::{Settings, serve};
use breakerbox_actors::printable;

use crate::cli::{ExitReason, counted};

/// Reads and checks the layers as `serve` does, and prints the result.
pub(crate) fn run(
    dir: Option<PathBuf>,
    environment: Option<String>,
    library: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let settings = match serve::check(dir, environment, library) {
        Ok(settings) => settings,
        Err(refused) => {
            writeln!(err, "breakerbox: {refused}")?;
            let sources = &refused.sources;
            let files: Vec<PathBuf> = sources.found().map(Path::to_owned).collect();
            write!(err, "{}", ConfigOrigins(&sources.environment, &files))?;
            return Ok(ExitReason::WrongUse);
        }
    };
    write!(
        out,
        "{}",
        ConfigOrigins(&settings.environment, settings.files())
    )?;
    write_values(&settings, out)?;
    for warning in settings.warnings() {
        writeln!(err, "breakerbox: warning: {warning}")?;
    }
    if settings.dependencies.is_empty() {
        // EDGE-6: an empty file is no error, but is hardly meant.
        writeln!(
            err,
            "breakerbox: warning: dependencies: there is none, so nothing can be called; a running \
             sidecar refuses a reload to it, unless reload.allow_empty = true"
        )?;
    }
    let values = settings.effective();
    let set = values.iter().filter(|one| !one.is_default).count();
    writeln!(
        out,
        "the configuration is valid: {}, {set} of {} values set",
        counted(settings.dependencies.len(), "dependency", "dependencies"),
        values.len(),
    )?;
    Ok(ExitReason::Done)
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

fn write_values(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let values = settings.effective();
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
