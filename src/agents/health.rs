//! Whether vector search works, asked past every fallback, with advice where it does not.
//!
//! A fallback that answers shows that callers are served, never that the service works; so nothing
//! here asks one. A check goes under the service's own breaker: it neither adds to a flood nor
//! hides from one. When it is made is its caller's business, or that of a supervised actor.

mod checks;
mod monitor;

use serde::Serialize;

pub use monitor::{CheckNow, HealthMonitor};

/// How a check ended, and all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It works, and something is not as it should be.
    Warn,
    /// It does not work.
    Error,
    /// Nothing works and nothing can: neither the set-up nor the authentication is right.
    Critical,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// `environment`, `authentication`, `embedding` or `search`.
    pub name: &'static str,
    /// How it ended.
    pub mark: Mark,
    /// In words.
    pub detail: String,
    /// How long it took.
    pub took_ms: u64,
}

/// What somebody should do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// `high`, `medium` or `low`.
    pub priority: &'static str,
    /// The check that it is about.
    pub category: &'static str,
    /// What is wrong.
    pub title: String,
    /// What to do.
    pub action: String,
}

/// Whether it gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    /// Better than the time before.
    Improving,
    /// As the time before, or there was none.
    Stable,
    /// Worse than the time before.
    Degrading,
}

/// All checks of one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// When, in the time of the world.
    pub at: String,
    /// All together.
    pub overall: Mark,
    /// The share of checks that are ok, in percent.
    pub success_rate: u32,
    /// Compared with the report before.
    pub trend: Trend,
    /// Each of them.
    pub checks: Vec<Check>,
    /// What to do, the most urgent first.
    pub advice: Vec<Advice>,
}

impl Report {
    fn of(at: jiff::Timestamp, checks: Vec<Check>, advice: Vec<Advice>) -> Self {
        let good = checks.iter().filter(|one| one.mark == Mark::Ok).count();
        let failed = |name| {
            let mut all = checks.iter();
            all.any(|one| one.name == name && one.mark == Mark::Error)
        };
        let worst = checks.iter().map(|one| one.mark).max().unwrap_or(Mark::Ok);
        let overall = if failed("environment") && failed("authentication") {
            Mark::Critical
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

    /// The same, compared with the one before.
    fn after(mut self, before: Option<&Self>) -> Self {
        self.trend = match before.map(|before| before.overall.cmp(&self.overall)) {
            Some(std::cmp::Ordering::Less) => Trend::Degrading,
            Some(std::cmp::Ordering::Greater) => Trend::Improving,
            _ => Trend::Stable,
        };
        self
    }

    /// The check of this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|one| one.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(marks: [Mark; 4]) -> Report {
        let names = ["environment", "authentication", "embedding", "search"];
        let checks = names.into_iter().zip(marks).map(|(name, mark)| Check {
            name,
            mark,
            detail: String::new(),
            took_ms: 0,
        });
        Report::of(jiff::Timestamp::UNIX_EPOCH, checks.collect(), Vec::new())
    }

    #[test]
    fn item_51_the_overall_mark_follows_from_the_four() {
        use Mark::{Critical, Error, Ok, Warn};
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
        let (good, bad) = (report([Mark::Ok; 4]), report([Mark::Error; 4]));
        assert_eq!(good.clone().after(None).trend, Trend::Stable);
        assert_eq!(bad.clone().after(Some(&good)).trend, Trend::Degrading);
        assert_eq!(good.clone().after(Some(&bad)).trend, Trend::Improving);
        assert_eq!(good.clone().after(Some(&good)).trend, Trend::Stable);
    }
}
