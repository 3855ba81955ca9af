//! Source of the sidecar's configuration, and the check that `serve` and `check` share.

use std::fmt;
use std::path::PathBuf;

use crate::config::{AdminConfig, ConfigError, Loader, Problem, Settings, Sources};
use crate::sidecar::observe::telemetry::Telemetry;

use super::dependencies::{self, UnservableConfig};

/// Default configuration of `serve`, used in development without any configuration.
const EMBEDDED: &str = include_str!("../../../config/default.toml");

/// The configuration that a command runs with.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConfigChoice {
    /// A folder that was named; it must have a configuration.
    pub dir: Option<PathBuf>,
    /// The environment, such as `production`; `None` for that of the variables.
    pub environment: Option<String>,
    /// True for simulated services in place of files, in any environment.
    pub simulates: bool,
}

impl ConfigChoice {
    /// Chooses a folder and an environment; `None` for the usual ones.
    #[must_use]
    pub fn new(dir: Option<PathBuf>, environment: Option<String>) -> Self {
        Self {
            dir,
            environment,
            simulates: false,
        }
    }

    /// Sets whether services are simulated in place of files.
    #[must_use]
    pub fn simulating(mut self, simulates: bool) -> Self {
        self.simulates = simulates;
        self
    }
}

/// Source of the configuration.
pub(super) struct ConfigSource {
    pub(super) loader: Loader,
}

impl ConfigSource {
    pub(super) fn new(choice: ConfigChoice) -> Self {
        let has_folder = choice.dir.is_some();
        let loader = loader(choice.dir, choice.environment);
        Self {
            // EDGE-7: simulated services come on request, or in development without files; they
            // never stand in for a folder that was named.
            loader: match (choice.simulates, has_folder) {
                (true, _) => loader.simulating(EMBEDDED),
                (false, true) => loader,
                (false, false) => loader.embedded(EMBEDDED),
            },
        }
    }

    /// Reads the layers.
    pub(super) fn read(&self) -> Result<Settings, ConfigError> {
        self.loader.load()
    }
}

/// Returns the loader of every command: a folder that was named has a `default.toml`.
pub fn loader(dir: Option<PathBuf>, environment: Option<String>) -> Loader {
    let mut loader = Settings::loader();
    if let Some(dir) = dir {
        loader = loader.dir(dir).require_default_file();
    }
    if let Some(environment) = environment {
        loader = loader.environment(environment);
    }
    loader
}

/// Returns the admin side of a configuration that cannot be used as a whole, as far as its files and
/// variables tell it: operators need it most while a file is broken. `None` if a folder was named that
/// has no file. Without any folder the variables alone tell it: those of this shell may belong to a
/// configuration that another process reads.
#[must_use]
pub fn readable_admin(loader: &Loader) -> Option<AdminConfig> {
    let sources = loader.sources();
    let files: Vec<_> = sources.found().collect();
    if files.is_empty() && loader.names_folder() {
        return None;
    }
    let mut bare = Settings::loader().bare();
    let mut admin = AdminConfig::default();
    // Each value by itself, so that a bad one leaves the other.
    let mut take = |text: String| {
        let next = bare.clone().toml(text);
        if let Ok(settings) = next.load() {
            admin = settings.admin;
            bare = next;
        }
    };
    for file in files {
        let Ok(text) = std::fs::read_to_string(file) else {
            continue;
        };
        let table = readable_table(&text);
        for key in ["token", "bind"] {
            let value = table.get("admin").and_then(|admin| admin.get(key));
            if let Some(value) = value.and_then(toml::Value::as_str) {
                take(one_value(key, value));
            }
        }
    }
    for (key, name) in [
        ("token", "BREAKERBOX__ADMIN__TOKEN"),
        ("bind", "BREAKERBOX__ADMIN__BIND"),
    ] {
        if let Ok(value) = std::env::var(name) {
            take(one_value(key, &value));
        }
    }
    Some(admin)
}

fn one_value(key: &str, value: &str) -> String {
    let value = toml::Value::String(value.to_owned());
    format!("admin.{key} = {value}\n")
}

/// Parses a file up to its first mistake.
fn readable_table(text: &str) -> toml::Table {
    let whole = text.parse::<toml::Table>();
    whole.unwrap_or_else(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let lines = before.rfind('\n').map_or("", |end| &before[..end]);
        lines.parse().unwrap_or_default()
    })
}

/// A configuration that `serve` refuses.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedConfig {
    /// The environment and the files.
    pub sources: Sources,
    /// The problems of the files and variables, each with its place; empty if the configuration can
    /// be read, and cannot be served.
    pub problems: Vec<Problem>,
    text: String,
}

impl fmt::Display for RefusedConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Reads and checks the configuration as [`super::run`] does, without starting anything.
///
/// `is_library`: it is meant for a program with its own code, so a dependency needs no kind, and
/// nothing is simulated.
///
/// # Errors  [`RefusedConfig`], with all problems.
pub fn check(choice: ConfigChoice, is_library: bool) -> Result<Settings, RefusedConfig> {
    let source = if is_library {
        ConfigSource {
            loader: loader(choice.dir, choice.environment),
        }
    } else {
        ConfigSource::new(choice)
    };
    let refused = |text: String, problems: &[Problem]| RefusedConfig {
        sources: source.loader.sources(),
        problems: problems.to_vec(),
        text,
    };
    // EDGE-7: what the start would refuse is refused here, by the same functions.
    if !is_library {
        Telemetry::check().map_err(|error| refused(error.to_string(), &[]))?;
    }
    let settings = source
        .read()
        .map_err(|error| refused(error.to_string(), error.problems()))?;
    let mut problems = dependencies::file_problems(&settings);
    if !is_library {
        problems.extend(dependencies::none_to_protect(&settings));
        problems.extend(dependencies::problems(&settings));
    }
    match UnservableConfig::of(problems) {
        Ok(()) => Ok(settings),
        Err(error) => Err(refused(error.to_string(), &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_a_the_admin_side_of_a_broken_file_can_be_reached() {
        let folder = tempfile::tempdir().unwrap();
        let loader = loader(Some(folder.path().to_owned()), None);
        assert!(readable_admin(&loader).is_none(), "there is no file");
        let unnamed = super::loader(None, None);
        let found = readable_admin(&unnamed).unwrap();
        assert_eq!(
            found.bind.port(),
            7071,
            "the variables of a shell, without a folder"
        );
        let write = |text: &str| std::fs::write(folder.path().join("default.toml"), text).unwrap();
        let admin = "[admin]\nbind = \"127.0.0.1:7999\"\ntoken = \"a-token-of-many-letters\"\n";
        for broken in [
            "nonsense\n",
            "[dependencies.a]\nkind = \"htp\"\n",
            "hosts = 7\n",
        ] {
            write(&format!("{admin}{broken}"));
            assert!(loader.load().is_err());
            let found = readable_admin(&loader).unwrap();
            assert_eq!(found.bind.port(), 7999, "{broken}");
            let token = found.token.unwrap();
            assert_eq!(token.expose(), "a-token-of-many-letters");
        }
        write("nonsense\n");
        assert_eq!(readable_admin(&loader).unwrap().bind.port(), 7071);
        write("[admin]\nbind = \"nowhere\"\ntoken = \"a-token-of-many-letters\"\n");
        let found = readable_admin(&loader).unwrap();
        assert_eq!((found.bind.port(), found.token.is_some()), (7071, true));
    }
}
