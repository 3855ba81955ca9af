//! `breakerbox serve`: runs the library's sidecar, with log output.

use std::io::{self, Write};

use breakerbox::serve::{self, ServeEnd};
use breakerbox::telemetry::{Format, Telemetry};

use super::{ConfigArgs, ExitReason};

/// Runs the sidecar until told to stop.
pub(crate) fn run(
    config: ConfigArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    if let Err(error) = Telemetry::init(Format::Auto) {
        writeln!(err, "breakerbox: {error}")?;
        return Ok(ExitReason::WrongUse);
    }
    let end = actix::System::new().block_on(serve::run(config.choice(), out, err))?;
    Ok(match end {
        ServeEnd::Stopped => ExitReason::Done,
        ServeEnd::WrongUse => ExitReason::WrongUse,
        _ => ExitReason::Failed,
    })
}
