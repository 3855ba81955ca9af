//! Source of the sidecar's configuration, and the check that `serve` and `check` share.

use std::fmt;
use std::path::PathBuf;

use crate::config::{ConfigError, Loader, Settings, Sources};
use crate::sidecar::observe::telemetry::Telemetry;

use super::dependencies::{self, UnservableConfig};

/// Default configuration of `serve`, used in development without any configuration.
const EMBEDDED: &str = include_str!("../../../config/default.toml");

/// Source of the configuration.
pub(super) struct ConfigSource {
    pub(super) loader: Loader,
}

impl ConfigSource {
    /// `dir`: a folder that was named; it must have a configuration.
    pub(super) fn new(dir: Option<PathBuf>, environment: Option<String>) -> Self {
        let loader = loader(dir.clone(), environment);
        Self {
            // EDGE-7: simulated services never stand in for a folder that was named.
            loader: match dir {
                Some(_) => loader,
                None => loader.embedded(EMBEDDED),
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
pub fn check(
    dir: Option<PathBuf>,
    environment: Option<String>,
    is_library: bool,
) -> Result<Settings, RefusedConfig> {
    let source = if is_library {
        ConfigSource {
            loader: loader(dir, environment),
        }
    } else {
        ConfigSource::new(dir, environment)
    };
    let refused = |text: String| RefusedConfig {
        sources: source.loader.sources(),
        text,
    };
    // EDGE-7: what the start would refuse is refused here, by the same functions.
    if !is_library {
        Telemetry::check().map_err(|error| refused(error.to_string()))?;
    }
    let settings = source.read().map_err(|error| refused(error.to_string()))?;
    let mut problems = dependencies::file_problems(&settings);
    if !is_library {
        problems.extend(dependencies::problems(&settings));
    }
    match UnservableConfig::of(problems) {
        Ok(()) => Ok(settings),
        Err(error) => Err(refused(error.to_string())),
    }
}
