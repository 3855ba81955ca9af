//! Arguments that choose a configuration, the same for each command that serves or checks one.

use std::path::PathBuf;

use breakerbox::serve::ConfigChoice;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// The folder and the environment of a configuration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Directory of the configuration files [default: config, if it exists]
    #[arg(long, value_name = "DIR", value_parser = path())]
    config: Option<PathBuf>,
    /// Environment, such as production [default: $BREAKERBOX_ENV or development]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// Simulates three services in place of reading files, in any environment
    #[arg(long, conflicts_with = "config")]
    simulate: bool,
}

/// Returns the parser of a path. A `~` that the shell has left there, as bash does behind `=`, is no
/// folder: `init --config=~/own` would make one of that name.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.starts_with("~") {
        true => Err(
            "the shell has left ~ as it is, allowed: the whole path, or a space in place of = before it",
        ),
        false => Ok(path),
    })
}

impl ConfigArgs {
    pub(crate) fn choice(self) -> ConfigChoice {
        ConfigChoice::new(self.config, self.env).simulating(self.simulate)
    }
}
