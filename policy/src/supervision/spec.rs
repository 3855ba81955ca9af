//! Specification of a supervisor and of its children, and the checks of both.

use std::time::Duration;

use crate::{BackoffSettings, GiveUp, Intensity, RestartType, RetryJitter};

/// Children that are restarted when one child fails.
///
/// # Source  Rule SUP-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Only that child.
    #[default]
    OneForOne,
    /// All children: stopped in reverse order, started in order.
    OneForAll,
    /// That child and the children that were started after it.
    RestForOne,
    /// Only that child. Children are added and removed while it runs, and are stopped at the same
    /// time (OTP's `simple_one_for_one`). A child that is terminated or finished is forgotten.
    Dynamic,
}

impl Strategy {
    /// Returns true if siblings are restarted too.
    pub(super) const fn is_group(self) -> bool {
        matches!(self, Self::OneForAll | Self::RestForOne)
    }
}

/// Way in which a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// It is dropped at once, without any clean-up.
    Kill,
    /// It is asked to stop, and killed if it is not gone after this time.
    Within(Duration),
    /// It is asked to stop, without a deadline. For supervisors.
    Infinity,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::Within(Duration::from_secs(5))
    }
}

/// Kind of a child. It decides only the default of [`ChildSpec::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChildKind {
    /// A child that works.
    #[default]
    Worker,
    /// A child that supervises.
    Supervisor,
}

/// End of a supervisor after the end of its significant children.
///
/// Only children that end by themselves count: a normal end of a transient child, any end of a
/// temporary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// The supervisor does not end.
    #[default]
    Never,
    /// It ends as soon as one of them has ended.
    AnySignificant,
    /// It ends when none of them is left.
    AllSignificant,
}

/// Specification of one child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// Name, unique under its supervisor.
    pub name: String,
    /// Condition for restarting it.
    pub restart: RestartType,
    /// Way in which it is stopped.
    pub shutdown: Shutdown,
    /// Its kind.
    pub kind: ChildKind,
    /// True if its end counts for [`AutoShutdown`].
    pub significant: bool,
    /// Action when its failure is one too many.
    pub give_up: GiveUp,
    /// Its own restart budget, in addition to the supervisor's.
    pub intensity: Option<Intensity>,
    /// True if the supervisor's own start does not wait for its first start, which then may fail
    /// like every later one.
    pub background: bool,
}

impl ChildSpec {
    /// Returns a permanent worker with 5 s to stop; its exhausted budget escalates (OTP).
    #[must_use]
    pub fn worker(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            restart: RestartType::Permanent,
            shutdown: Shutdown::default(),
            kind: ChildKind::Worker,
            significant: false,
            give_up: GiveUp::Escalate,
            intensity: None,
            background: false,
        }
    }

    /// Returns a permanent supervisor with unlimited time to stop.
    #[must_use]
    pub fn supervisor(name: impl Into<String>) -> Self {
        Self {
            shutdown: Shutdown::Infinity,
            kind: ChildKind::Supervisor,
            ..Self::worker(name)
        }
    }
}

/// Wait before a restart.
///
/// It grows with the failures in a row: `first`, then `delay.base`, then
/// `delay.base * delay.factor` and so on up to `delay.max`, spread by `delay.jitter`. Delays can
/// keep a child below the restart intensity for ever, so there is a limit in a row too.
///
/// # Source  Rule SUP-3 in docs/rules.md; scenario R11 in tests/scenarios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RestartBackoff {
    /// Wait before the first restart after a healthy run.
    pub first: Duration,
    /// Waits before the following restarts.
    pub delay: BackoffSettings,
    /// Running time of an incarnation after which the next failure counts as the first (`>=`).
    pub reset_after: Duration,
    /// Maximum number of restarts in a row without a healthy run; `None` for no limit.
    pub max_in_a_row: Option<u32>,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self {
            first: Duration::ZERO,
            delay: BackoffSettings {
                base: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(10),
                jitter: RetryJitter::Added(0.2),
            },
            reset_after: Duration::from_secs(10),
            max_in_a_row: Some(10),
        }
    }
}

/// OTP rules from which this runtime deliberately differs by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OtpRules {
    /// True if a supervisor that gave up ended normally: a transient one is not restarted (scenario
    /// S25).
    pub gave_up_is_normal: bool,
    /// True if a group round also starts children that an operator had stopped (scenario S27).
    pub rounds_revive_stopped: bool,
}

/// Specification of one supervisor.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisorSpec {
    /// Children that are restarted when one child fails.
    pub strategy: Strategy,
    /// Restart intensity of all children together.
    ///
    /// Budgets multiply by level: a supervisor above tolerates its own number of ends of this one.
    pub intensity: Intensity,
    /// End of the supervisor after the end of its significant children.
    pub auto_shutdown: AutoShutdown,
    /// The wait before a restart; `None` for none.
    pub backoff: Option<RestartBackoff>,
    /// OTP rules to follow exactly.
    pub otp: OtpRules,
}

impl Default for SupervisorSpec {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: Intensity {
                max: 5,
                within: Duration::from_secs(30),
            },
            auto_shutdown: AutoShutdown::Never,
            backoff: None,
            otp: OtpRules::default(),
        }
    }
}

/// A specification that cannot work; nothing is started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two children of one supervisor have the same name.
    #[error("child name {name} is given twice, names must be unique under their supervisor")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A significant child that could never shut the supervisor down.
    #[error(
        "child {name} is significant, which needs restart transient or temporary and an auto shutdown other than never"
    )]
    BadSignificant {
        /// The child.
        name: String,
    },
    /// A restart window of zero length, in which no number of restarts is too many.
    #[error("restart window is 0 s, it must be longer")]
    EmptyWindow,
    /// A backoff that shrinks, or is not a number.
    #[error("backoff is not usable: factor must be finite and at least 1, added jitter in [0, 1]")]
    BadBackoff,
}

impl SupervisorSpec {
    /// Checks the supervisor's own settings.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        check_window(self.intensity)?;
        let usable = self.backoff.is_none_or(|backoff| {
            let jitter = match backoff.delay.jitter {
                RetryJitter::Added(share) => share,
                _ => 0.0,
            };
            backoff.delay.factor.is_finite()
                && backoff.delay.factor >= 1.0
                && (0.0..=1.0).contains(&jitter)
        });
        if usable {
            Ok(())
        } else {
            Err(SpecError::BadBackoff)
        }
    }

    /// Checks one child under this supervisor.
    pub(super) fn check_child(&self, child: &ChildSpec) -> Result<(), SpecError> {
        let never_counts =
            self.auto_shutdown == AutoShutdown::Never || child.restart == RestartType::Permanent;
        if child.significant && never_counts {
            return Err(SpecError::BadSignificant {
                name: child.name.clone(),
            });
        }
        child.intensity.map_or(Ok(()), check_window)
    }
}

/// Checks that the restart window is not empty.
fn check_window(intensity: Intensity) -> Result<(), SpecError> {
    if intensity.within.is_zero() {
        Err(SpecError::EmptyWindow)
    } else {
        Ok(())
    }
}
