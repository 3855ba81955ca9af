//! The outages of one dependency: the one that stands, and the last ones that have ended.
//!
//! An outage begins with the first condition that its callers notice, and ends when none is left. It
//! remembers its first cause while the breaker goes on through its probes. Nothing here decides
//! whether a call goes out.

mod cause;

mod unanswered;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::{AnswerCounts, Time};

pub use cause::{CauseKind, OutageCause, limit_reached};
pub use unanswered::{GIVE_UP_MINIMUM, HangFigures, UnansweredCalls};

/// Number of ended outages that are kept of a dependency.
pub const OUTAGES_KEPT: usize = 50;

/// Time within which an outage goes on: a worker that starts and ends again, or a share of errors
/// that is under its limit for a moment, is one outage.
const MOMENT: Duration = Duration::from_secs(60);

/// Time within which an outage goes on if no call has got an own answer since its end: probes that
/// succeed while all calls fail do not divide it.
const SILENCE: Duration = Duration::from_secs(3_600);

/// A condition that callers notice. An outage lasts while there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageCondition {
    /// The breaker has opened, and has not closed since.
    BreakerOpen = 1,
    /// No worker is left to take calls.
    NoWorker = 2,
    /// The dependency refuses our configuration.
    Misconfigured = 4,
    /// Too large a share of the answers are errors.
    Errors = 8,
    /// Callers give up, and no call is answered.
    Unanswered = 16,
}

/// The reason of the end of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutageEnding {
    /// The dependency is well again.
    Recovery,
    /// Some of its calls failed and some did not, and none has come since: whether it is well is not
    /// known.
    Silence,
    /// An operator has closed its breaker: that says nothing of the dependency.
    Order,
}

/// An outage of a dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outage {
    /// Its number, unique within a runtime.
    pub id: u64,
    /// Time of its begin.
    pub since: Time,
    /// Time of its end; `None` while it stands.
    pub ended: Option<Time>,
    /// The reason of its end; `None` while it stands.
    pub ended_by: Option<OutageEnding>,
    /// The condition that it began with.
    pub began_with: OutageCondition,
    /// The first cause.
    pub cause: OutageCause,
    /// Probes with a result so far.
    pub probes: u64,
    /// Probes among them that failed.
    pub probes_failed: u64,
    /// The latest probe with a result.
    pub last_probe: Option<ProbeNote>,
    /// The answers that callers got since its begin.
    pub affected: AnswerCounts,
    /// The operator who has taken it on.
    pub acknowledged: Option<Acknowledgement>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeNote {
    /// Time of the result.
    pub at: Time,
    /// True if it succeeded.
    pub succeeded: bool,
    /// The result in words.
    pub text: String,
}

/// An operator's note that he or she looks after an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The operator.
    pub by: String,
    /// The note.
    pub note: String,
    /// Time of the note.
    pub at: Time,
}

/// The outages of one dependency.
///
/// # Source  Rule HLT-2 in docs/rules.md.
#[derive(Debug, Clone, Default)]
pub struct OutageLog {
    standing: Option<StandingOutage>,
    /// The newest last.
    ended: VecDeque<Outage>,
    /// The dependency's own answers at the end of the newest.
    own_at_end: u64,
}

#[derive(Debug, Clone)]
struct StandingOutage {
    outage: Outage,
    /// The conditions that last, as bits.
    conditions: u8,
    /// The dependency's answers at its begin.
    answers: AnswerCounts,
}

impl OutageLog {
    /// Begins an outage, or adds a condition to the one that stands. `answers`: all answers of the
    /// dependency so far. `first`: the number and the cause of a new outage. Returns true if one began.
    pub fn begin(
        &mut self,
        now: Time,
        condition: OutageCondition,
        answers: AnswerCounts,
        first: impl FnOnce() -> (u64, OutageCause),
    ) -> bool {
        // HLT-2: what comes later is part of the outage, and does not replace its first cause.
        if let Some(standing) = &mut self.standing {
            standing.conditions |= condition as u8;
            return false;
        }
        if self.resume(now, condition, answers) {
            return false;
        }
        let (id, cause) = first();
        self.standing = Some(StandingOutage {
            outage: Outage {
                id,
                since: now,
                ended: None,
                ended_by: None,
                began_with: condition,
                cause,
                probes: 0,
                probes_failed: 0,
                last_probe: None,
                affected: AnswerCounts::default(),
                acknowledged: None,
            },
            conditions: condition as u8,
            answers,
        });
        true
    }

    /// Goes on with the latest outage, if it was over for a moment only, or if no call has got an own
    /// answer since.
    fn resume(&mut self, now: Time, condition: OutageCondition, answers: AnswerCounts) -> bool {
        let is_same = matches!(
            condition,
            OutageCondition::NoWorker | OutageCondition::Errors | OutageCondition::Unanswered
        );
        // HLT-2: for callers it was not over, although the probes succeeded.
        let is_silent = answers.own == self.own_at_end;
        let goes_on = |outage: &Outage| {
            let over = outage.ended.map(|ended| now.since(ended));
            let is_moment = is_same && outage.began_with == condition;
            over.is_some_and(|over| (is_silent && over < SILENCE) || (is_moment && over < MOMENT))
        };
        if !self.ended.back().is_some_and(goes_on) {
            return false;
        }
        let Some(mut outage) = self.ended.pop_back() else {
            return false;
        };
        outage.ended = None;
        outage.ended_by = None;
        // The answers in between are none of the outage's.
        let before = answers.since(outage.affected);
        self.standing = Some(StandingOutage {
            outage,
            conditions: condition as u8,
            answers: before,
        });
        true
    }

    /// Counts the affected answers of an outage that has just begun from earlier ones on: those that
    /// have begun it belong to it.
    pub fn count_from(&mut self, answers: AnswerCounts) {
        if let Some(standing) = &mut self.standing {
            standing.answers = answers;
        }
    }

    /// Takes a condition off. Returns true if the outage has ended with it.
    pub fn end(
        &mut self,
        now: Time,
        condition: OutageCondition,
        by: OutageEnding,
        answers: AnswerCounts,
    ) -> bool {
        let Some(standing) = &mut self.standing else {
            return false;
        };
        standing.conditions &= !(condition as u8);
        if standing.conditions != 0 {
            return false;
        }
        self.end_all(now, by, answers)
    }

    /// Ends the outage that stands, with all its conditions. Returns true if there was one.
    pub fn end_all(&mut self, now: Time, by: OutageEnding, answers: AnswerCounts) -> bool {
        let Some(standing) = self.standing.take() else {
            return false;
        };
        let mut outage = standing.at(answers);
        outage.ended = Some(now);
        outage.ended_by = Some(by);
        self.own_at_end = answers.own;
        if self.ended.len() == OUTAGES_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(outage);
        true
    }

    /// Returns true if this condition lasts.
    #[must_use]
    pub fn has(&self, condition: OutageCondition) -> bool {
        let standing = self.standing.as_ref();
        standing.is_some_and(|standing| standing.conditions & condition as u8 != 0)
    }

    /// Returns the kind of the first cause of the outage that stands.
    #[must_use]
    pub fn cause_kind(&self) -> Option<CauseKind> {
        let standing = self.standing.as_ref();
        standing.map(|standing| standing.outage.cause.kind)
    }

    /// Returns true if an outage stands.
    #[must_use]
    pub const fn stands(&self) -> bool {
        self.standing.is_some()
    }

    /// Notes probes with results, `failed` among them, and the latest one. A half-open period is
    /// counted at its end; what it has shown before is noted without numbers.
    pub fn probes(&mut self, tried: u64, failed: u64, latest: ProbeNote) {
        if let Some(standing) = &mut self.standing {
            // HLT-2: probes are figures of the outage, and its begin stays.
            standing.outage.probes += tried;
            standing.outage.probes_failed += failed;
            standing.outage.last_probe = Some(latest);
        }
    }

    /// Notes that an operator looks after the outage of this number. Returns false if it is not kept.
    pub fn acknowledge(&mut self, id: u64, note: Acknowledgement) -> bool {
        let standing = self.standing.iter_mut().map(|one| &mut one.outage);
        let mut all = standing.chain(&mut self.ended);
        let Some(outage) = all.find(|outage| outage.id == id) else {
            return false;
        };
        outage.acknowledged = Some(note);
        true
    }

    /// Returns the outage that stands. `answers`: all answers of the dependency so far.
    #[must_use]
    pub fn standing(&self, answers: AnswerCounts) -> Option<Outage> {
        Some(self.standing.as_ref()?.at(answers))
    }

    /// Returns the outages that have ended, the newest first.
    pub fn ended(&self) -> impl Iterator<Item = &Outage> {
        self.ended.iter().rev()
    }
}

impl StandingOutage {
    fn at(&self, answers: AnswerCounts) -> Outage {
        Outage {
            affected: answers.since(self.answers),
            ..self.outage.clone()
        }
    }
}
