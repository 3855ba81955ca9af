//! Health checks of vector search that bypass every fallback, with advice on failures.
//!
//! An answer from a fallback shows that callers are served, not that the service works; so checks
//! never use one. A check runs under the service's own breaker: it adds nothing to an overload, and
//! its outcome counts. The caller, or a supervised actor, decides when to check.

mod checks;
mod monitor;

use serde::Serialize;

pub use monitor::{CheckNow, HealthMonitor};

/// Status of one check, or of all checks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckStatus {
    /// No problem.
    Ok,
    /// It works, but has a problem.
    Warn,
    /// It does not work.
    Error,
    /// Nothing can work: both the environment and the authentication checks failed.
    Critical,
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// `environment`, `authentication`, `embedding` or `search`.
    pub name: &'static str,
    /// The status.
    pub mark: CheckStatus,
    /// A description for people.
    pub detail: String,
    /// Duration in milliseconds.
    pub took_ms: u64,
}

/// A recommended action for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// `high`, `medium` or `low`.
    pub priority: &'static str,
    /// Name of the check.
    pub category: &'static str,
    /// The problem.
    pub title: String,
    /// The recommended action.
    pub action: String,
}

/// Change since the previous report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Trend {
    /// Better than the previous report.
    Improving,
    /// As the previous report, or there is none.
    Stable,
    /// Worse than the previous report.
    Degrading,
}

/// Results of one round of checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// Wall-clock time of the round.
    pub at: String,
    /// The overall status.
    pub overall: CheckStatus,
    /// Share of checks with status `ok`, in percent.
    pub success_rate: u32,
    /// Change of the overall status since the previous report.
    pub trend: Trend,
    /// Result of each check.
    pub checks: Vec<Check>,
    /// Recommended actions, the most urgent first.
    pub advice: Vec<Advice>,
}

impl HealthReport {
    fn of(at: jiff::Timestamp, checks: Vec<Check>, advice: Vec<Advice>) -> Self {
        let good = checks
            .iter()
            .filter(|one| one.mark == CheckStatus::Ok)
            .count();
        let failed = |name| {
            let mut all = checks.iter();
            all.any(|one| one.name == name && one.mark == CheckStatus::Error)
        };
        let worst = checks
            .iter()
            .map(|one| one.mark)
            .max()
            .unwrap_or(CheckStatus::Ok);
        let overall = if failed("environment") && failed("authentication") {
            CheckStatus::Critical
        } else {
            worst
        };
        let success_rate = good * 100 / checks.len().max(1);
        Self {
            at: at.to_string(),
            overall,
            success_rate: u32::try_from(success_rate).unwrap_or(100),
            trend: Trend::Stable,
            checks,
            advice,
        }
    }

    /// Sets the trend by comparison with the previous report.
    fn after(mut self, before: Option<&Self>) -> Self {
        self.trend = match before.map(|before| before.overall.cmp(&self.overall)) {
            Some(std::cmp::Ordering::Less) => Trend::Degrading,
            Some(std::cmp::Ordering::Greater) => Trend::Improving,
            _ => Trend::Stable,
        };
        self
    }

    /// Returns the result of the check with this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|one| one.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(marks: [CheckStatus; 4]) -> HealthReport {
        let names = ["environment", "authentication", "embedding", "search"];
        let checks = names.into_iter().zip(marks).map(|(name, mark)| Check {
            name,
            mark,
            detail: String::new(),
            took_ms: 0,
        });
        HealthReport::of(jiff::Timestamp::UNIX_EPOCH, checks.collect(), Vec::new())
    }

    #[test]
    fn item_51_the_overall_mark_follows_from_the_four() {
        use CheckStatus::{Critical, Error, Ok, Warn};
        for (marks, overall, rate) in [
            ([Ok, Ok, Ok, Ok], Ok, 100),
            ([Ok, Ok, Ok, Warn], Warn, 75),
            ([Ok, Ok, Error, Ok], Error, 75),
            ([Error, Ok, Ok, Ok], Error, 75),
            ([Ok, Error, Error, Error], Error, 25),
            ([Error, Error, Error, Error], Critical, 0),
        ] {
            let report = report(marks);
            assert_eq!(
                (report.overall, report.success_rate),
                (overall, rate),
                "{marks:?}"
            );
        }
    }

    #[test]
    fn item_51_the_trend_follows_from_the_last_two() {
        let (good, bad) = (
            report([CheckStatus::Ok; 4]),
            report([CheckStatus::Error; 4]),
        );
        assert_eq!(good.clone().after(None).trend, Trend::Stable);
        assert_eq!(bad.clone().after(Some(&good)).trend, Trend::Degrading);
        assert_eq!(good.clone().after(Some(&bad)).trend, Trend::Improving);
        assert_eq!(good.clone().after(Some(&good)).trend, Trend::Stable);
    }
}
