//! `breakerbox import`: the servers of an agent's client as a configuration.
//!
//! The configuration goes to standard output or into a new file, what a person has to look at goes
//! to standard error. No secret is shown there.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use breakerbox::Settings;
use breakerbox::config::{ImportedConfig, import_clients};
use breakerbox::policy::CountedNoun;
use breakerbox_actors::printable;

use crate::cli::{ExitReason, path};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// File of the client, such as .mcp.json, .cursor/mcp.json or .vscode/mcp.json; - reads standard
    /// input
    #[arg(value_parser = path())]
    file: PathBuf,
    /// Writes a new file instead of standard output; a file that exists is never changed
    #[arg(long, value_name = "FILE", value_parser = path())]
    write: Option<PathBuf>,
}

/// Reads the file and writes the configuration.
pub(crate) fn run(
    arguments: &ImportArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let shown = printable(&arguments.file.display().to_string()).into_owned();
    let text = match read(&arguments.file) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "breakerbox: {shown} cannot be read: {error}")?;
            return Ok(ExitReason::Failed);
        }
    };
    let name = arguments.file.file_name().unwrap_or_default();
    let imported = match import_clients(&text, &name.to_string_lossy()) {
        Ok(imported) => imported,
        Err(error) => {
            let error = error.to_string();
            writeln!(err, "breakerbox: {shown}: {}", printable(&error))?;
            return Ok(ExitReason::WrongUse);
        }
    };
    match &arguments.write {
        None => out.write_all(imported.toml.as_bytes())?,
        Some(file) => {
            let place = printable(&file.display().to_string()).into_owned();
            if let Err(error) = write_new(file, &imported.toml) {
                let hint = match error.kind() {
                    io::ErrorKind::AlreadyExists => "; name another file",
                    _ => "",
                };
                writeln!(err, "breakerbox: {place} cannot be written: {error}{hint}")?;
                return Ok(ExitReason::Failed);
            }
            writeln!(out, "wrote {place}")?;
        }
    }
    tell(&imported, err)?;
    Ok(ExitReason::Done)
}

/// Tells what a person has to look at.
fn tell(imported: &ImportedConfig, err: &mut dyn Write) -> io::Result<()> {
    for note in &imported.notes {
        writeln!(err, "breakerbox: note: {}", printable(note))?;
    }
    let checked = Settings::loader().bare().toml(&imported.toml).load();
    match &checked {
        Ok(settings) => {
            for warning in settings.warnings() {
                writeln!(err, "breakerbox: warning: {warning}")?;
            }
        }
        Err(error) => writeln!(err, "breakerbox: it has to be completed: {error}")?,
    }
    let ready = CountedNoun(imported.ready as u64, "server");
    let rest = match imported.commented {
        0 => String::new(),
        number => format!(", {number} in comments"),
    };
    writeln!(err, "breakerbox: {ready} imported{rest}")
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

/// Writes a new file that only its owner can read: it may contain secrets.
fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(file)?.write_all(text.as_bytes())
}
