//! Source of the sidecar's configuration, and the check that `serve` and `check` share.

use std::fmt;
use std::path::PathBuf;

use crate::config::{ConfigError, Loader, Problem, Settings, Sources};
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
