//! Words for the events of a fleet.

use std::fmt;

use breakerbox_policy::{CountedNoun, RoundedDuration};

use super::EventKind;

impl EventKind {
    pub(super) fn write_fleet(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FleetJoined { fleet } => write!(out, "the board of the fleet {fleet} is reached"),
            Self::FleetLost { fleet, reason } => write!(
                out,
                "the board of the fleet {fleet} is not reached, each replica decides alone: {reason}"
            ),
            Self::Adopted {
                how,
                by,
                replicas,
                of,
            } => {
                let of = CountedNoun(u64::from(*of), "replica");
                match *how {
                    "verdict" => write!(out, "closed by the verdict of {by}"),
                    "confirm" => write!(
                        out,
                        "opened by fewer failures of its own, as {replicas} of {of} had it open: {by}"
                    ),
                    _ => write!(out, "opened because {replicas} of {of} had it open: {by}"),
                }
            }
            Self::Held { by, for_ } => write!(
                out,
                "stays open for {}: the probe of {by} failed",
                RoundedDuration(*for_)
            ),
            Self::Fenced { by } => {
                write!(
                    out,
                    "its verdict came too late: {by} holds the lease to probe"
                )
            }
            // The other kinds are not the fleet's.
            _ => Ok(()),
        }
    }
}
