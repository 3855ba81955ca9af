//! Arguments that choose a configuration, the same for each command that serves or checks one.

use std::path::PathBuf;

use breakerbox::serve::ConfigChoice;

/// The folder and the environment of a configuration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Directory of the configuration files [default: config, if it exists]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Environment, such as production [default: $BREAKERBOX_ENV or development]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// Simulates three services in place of reading files, in any environment
    #[arg(long, conflicts_with = "config")]
    simulate: bool,
}

impl ConfigArgs {
    pub(crate) fn choice(self) -> ConfigChoice {
        ConfigChoice::new(self.config, self.env).simulating(self.simulate)
    }
}
