//! What a supervisor is told about itself and its children, and which of it cannot work.

use std::time::Duration;

use crate::{BackoffSettings, GiveUp, Intensity, RestartType, RetryJitter};

/// Who is restarted when one child fails.
///
/// # Source  Rule SUP-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Only that child.
    #[default]
    OneForOne,
    /// All of them: stopped in reverse order, started in order.
    OneForAll,
    /// It and those that were started after it.
    RestForOne,
    /// Only that child; children come and go, and are stopped at the same time (OTP's
    /// `simple_one_for_one`). A child that is terminated or finished is forgotten.
    Dynamic,
}

impl Strategy {
    /// Whether siblings are restarted too.
    pub(super) const fn is_group(self) -> bool {
        matches!(self, Self::OneForAll | Self::RestForOne)
    }
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once and without any clean-up.
    Kill,
    /// It is asked, and killed when it is not gone after this long.
    Within(Duration),
    /// It is asked, and waited for as long as it takes. For supervisors.
    Infinity,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::Within(Duration::from_secs(5))
    }
}

/// What a child is. It decides nothing but the default of [`ChildSpec::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChildKind {
    /// It works.
    #[default]
    Worker,
    /// It supervises.
    Supervisor,
}

/// Whether a supervisor ends when its significant children have.
///
/// Only ends by themselves count: a normal end of a transient child, any end of a temporary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// No.
    #[default]
    Never,
    /// As soon as one of them has.
    AnySignificant,
    /// When none of them is left.
    AllSignificant,
}

/// One child, as its supervisor knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// Unique under its supervisor.
    pub name: String,
    /// When it is started again.
    pub restart: RestartType,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// What it is.
    pub kind: ChildKind,
    /// Whether its end counts for [`AutoShutdown`].
    pub significant: bool,
    /// What happens when its failure is one too many.
    pub give_up: GiveUp,
    /// Its own restart budget, in addition to the supervisor's.
    pub intensity: Option<Intensity>,
}

impl ChildSpec {
    /// A permanent worker that is given 5 s to stop and whose exhausted budget escalates (OTP).
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
        }
    }

    /// A permanent supervisor that is given all the time it needs to stop.
    #[must_use]
    pub fn supervisor(name: impl Into<String>) -> Self {
        Self {
            shutdown: Shutdown::Infinity,
            kind: ChildKind::Supervisor,
            ..Self::worker(name)
        }
    }
}

/// The wait before a restart.
///
/// It grows with the failures in a row: `first`, then `delay.base`, then
/// `delay.base * delay.factor` and so on up to `delay.max`, spread by `delay.jitter`. Delays can
/// keep a child out of reach of the restart intensity for ever, so there is a limit in a row too.
///
/// # Source  Rule SUP-3; R11 in the scenario files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RestartBackoff {
    /// Before the first restart after a healthy run.
    pub first: Duration,
    /// Before the following ones.
    pub delay: BackoffSettings,
    /// Running time of one incarnation after which the next failure is a first one (`>=`).
    pub reset_after: Duration,
    /// Restarts without a healthy run that are still made; `None` for no such limit.
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

/// Where OTP is followed although this runtime deliberately differs by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OtpRules {
    /// A supervisor that gave up counts as a normal end: a transient one is not restarted (S25).
    pub gave_up_is_normal: bool,
    /// A group round also starts children that an operator had stopped (S27).
    pub rounds_revive_stopped: bool,
}

/// One supervisor.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisorSpec {
    /// Who is restarted when one child fails.
    pub strategy: Strategy,
    /// Restarts of all children together that are too many.
    ///
    /// Budgets multiply by level: a supervisor above tolerates its own number of ends of this one.
    pub intensity: Intensity,
    /// Whether it ends when its significant children have.
    pub auto_shutdown: AutoShutdown,
    /// The wait before a restart; `None` for none.
    pub backoff: Option<RestartBackoff>,
    /// Where OTP is followed to the letter.
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
pub enum SpecError {
    /// Two children of one supervisor have the same name.
    #[error("child name {name} is given twice, names must be unique under their supervisor")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A significant child whose end could never shut the supervisor down.
    #[error(
        "child {name} is significant, which needs restart transient or temporary and an auto shutdown other than never"
    )]
    BadSignificant {
        /// The child.
        name: String,
    },
    /// A restart window of no length, in which nothing is ever too many.
    #[error("restart window is 0 s, it must be longer")]
    EmptyWindow,
    /// A backoff that shrinks, or is not a number.
    #[error("backoff is not usable: factor must be finite and at least 1, added jitter in [0, 1]")]
    BadBackoff,
}

impl SupervisorSpec {
    /// Checks the supervisor's own part.
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

/// Checks that restarts can be too many.
fn check_window(intensity: Intensity) -> Result<(), SpecError> {
    if intensity.within.is_zero() {
        Err(SpecError::EmptyWindow)
    } else {
        Ok(())
    }
}
