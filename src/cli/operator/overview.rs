//! All dependencies at a glance: sick ones first, in rows of cells, with a line of sums above them.
//!
//! It reads the answer of the admin side and decides the order; it draws nothing.

use std::cmp::Reverse;

use breakerbox::policy::CountedNoun;
use serde_json::Value;

use super::table::{millis, plain, state, text, why};

/// A column of the overview, in the order in which they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Health,
    State,
    Errors,
    Rate,
    InFlight,
    Queued,
    Calls,
    Primary,
    Fallback,
    Refused,
    Failed,
    P99,
    Reason,
}

impl Column {
    pub(super) const ALL: [Self; 14] = [
        Self::Name,
        Self::Health,
        Self::State,
        Self::Errors,
        Self::Rate,
        Self::InFlight,
        Self::Queued,
        Self::Calls,
        Self::Primary,
        Self::Fallback,
        Self::Refused,
        Self::Failed,
        Self::P99,
        Self::Reason,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Health => "health",
            Self::State => "state",
            Self::Errors => "errors",
            Self::Rate => "calls/s",
            Self::InFlight => "in flight",
            Self::Queued => "queued",
            Self::Calls => "calls",
            Self::Primary => "primary",
            Self::Fallback => "fallback",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::P99 => "p99",
            Self::Reason => "why",
        }
    }

    fn cell(self, one: &Value) -> String {
        let (totals, limits) = (&one["totals"], &one["limits"]);
        let of = |now: &Value, most: &Value| plain(&format!("{now}/{most}"));
        match self {
            Self::Name => text(&one["name"]),
            Self::Health => text(&one["health"]),
            Self::State => state(one),
            Self::Errors => errors(&one["answers"]),
            Self::Rate => one["answers"]["per_second"]
                .as_f64()
                .map_or_else(String::new, rate),
            Self::InFlight => of(&one["in_flight"], &limits["concurrent"]),
            Self::Queued => of(&one["queued"], &limits["max_queue"]),
            Self::Calls => text(&totals["submitted"]),
            Self::Primary => text(&totals["primary"]),
            Self::Fallback => text(&totals["fallback"]),
            Self::Refused => text(&totals["refused"]),
            Self::Failed => text(&totals["failed"]),
            Self::P99 => millis(&one["latency_ms"]["p99"]),
            Self::Reason => why(one),
        }
    }
}

/// Returns the share of errors among the answers of the last time, or the counts if they are too few
/// for a share (BRK-14).
fn errors(answers: &Value) -> String {
    match (answers["share"].as_f64(), answers["calls"].as_u64()) {
        (Some(share), _) => format!("{:.0} %", share * 100.0),
        (None, Some(calls @ 1..)) => {
            format!("{} of {calls}", plain(&answers["errors"].to_string()))
        }
        _ => String::new(),
    }
}

/// Returns a rate with two digits.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

/// The health of a dependency, the sickest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HealthRank {
    Down,
    Degraded,
    Ok,
}

impl HealthRank {
    fn of(one: &Value) -> Self {
        match one["health"].as_str() {
            Some("ok") => Self::Ok,
            Some("degraded") => Self::Degraded,
            _ => Self::Down,
        }
    }
}

/// A dependency in the overview.
pub(super) struct OverviewRow {
    pub(super) rank: HealthRank,
    is_overridden: bool,
    calls: f64,
    errors: f64,
    cells: Vec<String>,
}

impl OverviewRow {
    fn of(one: &Value) -> Self {
        let figure = |name: &str| one["answers"][name].as_f64().unwrap_or(0.0);
        Self {
            rank: HealthRank::of(one),
            is_overridden: one["override"].is_object(),
            calls: figure("per_second"),
            errors: figure("errors_per_second"),
            cells: Column::ALL.iter().map(|column| column.cell(one)).collect(),
        }
    }

    pub(super) fn cell(&self, column: Column) -> &str {
        let place = Column::ALL.iter().position(|one| *one == column);
        place.map_or("", |place| &self.cells[place])
    }

    /// Returns true if an operator has to know of it: it is sick, or overridden.
    fn needs_attention(&self) -> bool {
        self.rank != HealthRank::Ok || self.is_overridden
    }
}

/// All dependencies, or the sick ones among them.
pub(super) struct Overview {
    /// The sums of all dependencies, in a line; `None` for one dependency alone.
    pub(super) head: Option<String>,
    pub(super) rows: Vec<OverviewRow>,
}

impl Overview {
    /// Reads the answer of `GET /api/dependencies`. `only_sick`: leaves out those that are well and
    /// have no override.
    pub(super) fn of(answer: &Value, only_sick: bool) -> Self {
        let all = answer.as_array().into_iter().flatten();
        let mut rows: Vec<OverviewRow> = all.map(OverviewRow::of).collect();
        let head = head(&rows);
        if only_sick {
            rows.retain(OverviewRow::needs_attention);
        }
        rows.sort_by(|one, other| {
            let by_errors = other.errors.total_cmp(&one.errors);
            let by_override = Reverse(one.is_overridden).cmp(&Reverse(other.is_overridden));
            let by_name = one.cell(Column::Name).cmp(other.cell(Column::Name));
            one.rank
                .cmp(&other.rank)
                .then(by_errors)
                .then(by_override)
                .then(by_name)
        });
        Self {
            head: Some(head),
            rows,
        }
    }

    /// Reads one dependency.
    pub(super) fn single(dependency: &Value) -> Self {
        Self {
            head: None,
            rows: vec![OverviewRow::of(dependency)],
        }
    }
}

/// Returns the sums in a line.
fn head(rows: &[OverviewRow]) -> String {
    let count = |rank| rows.iter().filter(|row| row.rank == rank).count();
    let parts = [
        (count(HealthRank::Down), "down"),
        (count(HealthRank::Degraded), "degraded"),
        (count(HealthRank::Ok), "ok"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let mut head = counted(rows.len(), "dependency");
    if !parts.is_empty() {
        head = format!("{head}: {}", parts.join(", "));
    }
    let overrides = rows.iter().filter(|row| row.is_overridden).count();
    if overrides > 0 {
        head = format!("{head}; {}", counted(overrides, "override"));
    }
    let calls: f64 = rows.iter().map(|row| row.calls).sum();
    let errors: f64 = rows.iter().map(|row| row.errors).sum();
    if calls > 0.0 {
        head = format!("{head}; {} calls/s, {} errors/s", rate(calls), rate(errors));
    }
    head
}

fn counted(count: usize, noun: &'static str) -> String {
    CountedNoun(u64::try_from(count).unwrap_or(u64::MAX), noun).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        let one = |name: &str, health: &str, errors: f64| {
            json!({
                "name": name, "health": health, "state": "closed", "override": null,
                "answers": {"calls": 61, "errors": 20, "share": 0.33, "per_second": 2.0,
                            "errors_per_second": errors},
            })
        };
        let mut held = one("held", "ok", 0.0);
        held["override"] = json!({"mode": "disabled", "reason": "a test"});
        json!([
            one("api", "ok", 0.0),
            held,
            one("lame", "degraded", 0.1),
            one("quiet", "down", 0.0),
            one("payments", "down", 2.0),
        ])
    }

    fn names(overview: &Overview) -> Vec<&str> {
        let rows = overview.rows.iter();
        rows.map(|row| row.cell(Column::Name)).collect()
    }

    #[test]
    fn ops_l_the_sick_come_first_by_the_errors_of_callers() {
        let all = Overview::of(&answer(), false);
        assert_eq!(names(&all), ["payments", "quiet", "lame", "held", "api"]);
        assert_eq!(
            all.head.as_deref().unwrap(),
            "5 dependencies: 2 down, 1 degraded, 2 ok; 1 override; 10 calls/s, 2.1 errors/s"
        );
        assert_eq!(all.rows[0].cell(Column::Errors), "33 %");
    }

    #[test]
    fn ops_l_the_sick_alone_have_the_sums_of_all() {
        let sick = Overview::of(&answer(), true);
        assert_eq!(names(&sick), ["payments", "quiet", "lame", "held"]);
        assert!(sick.head.unwrap().starts_with("5 dependencies: 2 down"));
        let none = Overview::of(&json!([]), true);
        assert_eq!(none.rows.len(), 0);
        assert_eq!(none.head.as_deref(), Some("0 dependencies"));
    }

    #[test]
    fn brk_14_few_answers_have_no_share() {
        let few = json!({"calls": 3, "errors": 1, "share": null});
        assert_eq!(errors(&few), "1 of 3");
        assert_eq!(errors(&json!({"calls": 0, "errors": 0, "share": null})), "");
        assert_eq!(errors(&Value::Null), "");
    }
}
