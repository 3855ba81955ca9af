//! `breakerbox check`: validates the configuration, and prints the origin of each value.
//!
//! It starts nothing. The readers of the configuration mask secrets.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use breakerbox::Settings;

use crate::cli::{ExitReason, counted};

/// Reads the layers as every other command does, and prints the result.
pub(crate) fn run(
    dir: Option<PathBuf>,
    environment: Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let mut loader = Settings::loader();
    if let Some(dir) = dir {
        loader = loader.dir(dir);
    }
    if let Some(environment) = environment {
        loader = loader.environment(environment);
    }
    let settings = match loader.load() {
        Ok(settings) => settings,
        Err(error) => {
            writeln!(err, "breakerbox: {error}")?;
            let sources = loader.sources();
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
        writeln!(out, "environment {environment}")?;
        if files.is_empty() {
            writeln!(out, "no file read")?;
        }
        let mut files = files.iter();
        files.try_for_each(|file| writeln!(out, "read {}", file.display()))
    }
}

fn write_values(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let values = settings.effective();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).min(60);
    let keys = longest(&mut values.iter().map(|one| one.key.chars().count()));
    let texts = longest(&mut values.iter().map(|one| one.value.chars().count()));
    for one in values {
        let (key, value, origin) = (&one.key, &one.value, &one.origin);
        writeln!(out, "{key:keys$} = {value:texts$}  # {origin}")?;
    }
    Ok(())
}
