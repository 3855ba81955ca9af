//! `breakerbox check`: whether the configuration can be used, and where each value comes from.
//!
//! It starts nothing. Secrets are masked by whoever reads them.

use std::io::{self, Write};
use std::path::PathBuf;

use breakerbox::Settings;

use crate::End;

/// Reads the layers as every other command would, and prints what came of it.
pub(crate) fn run(
    dir: Option<PathBuf>,
    environment: Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<End> {
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
            return Ok(End::WrongUse);
        }
    };
    let values = settings.effective();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).min(60);
    let keys = longest(&mut values.iter().map(|one| one.key.chars().count()));
    let texts = longest(&mut values.iter().map(|one| one.value.chars().count()));
    for one in values {
        let (key, value, origin) = (&one.key, &one.value, &one.origin);
        writeln!(out, "{key:keys$} = {value:texts$}  # {origin}")?;
    }
    writeln!(
        out,
        "the configuration is valid: environment {}, {} dependencies, {} values set; the rest has its default",
        settings.environment,
        settings.dependencies.len(),
        values.len(),
    )?;
    Ok(End::Done)
}
