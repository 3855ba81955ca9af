//! The table `probe` of an HTTP dependency: a request of our own that asks whether it is well.

use std::fmt;
use std::time::Duration;

use breakerbox_policy::BreakerSettings;
use config::{Value, ValueKind};

use super::kind::DependencyKind;
use super::masking::{MASK, show};
use super::section::Section;
use super::url::dots;
use super::value_type::{TICK, ValueType, duration, string};

/// Longest time between two probes.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATH: &str = "a path such as \"/healthz\", relative to url, with a query if needed";

/// A request of our own that asks whether a dependency is well.
///
/// # Source  Rule BRK-13 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeConfig {
    /// Path and query, relative to the dependency's address.
    pub path: String,
    /// Time between two probes while the breaker is closed and no call comes.
    pub every: Duration,
    /// Time limit of a probe.
    pub timeout: Duration,
    /// Statuses of a dependency that is well.
    pub status: Vec<StatusRange>,
}

/// A range of HTTP statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusRange {
    /// The lowest status.
    pub first: u16,
    /// The highest status.
    pub last: u16,
}

impl StatusRange {
    /// Returns true for a status of the range.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }

    fn new(first: u16, last: u16) -> Option<Self> {
        let is_range = (100..=599).contains(&first) && (first..=599).contains(&last);
        is_range.then_some(Self { first, last })
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(out, "{}", self.first),
            false => write!(out, "{}-{}", self.first, self.last),
        }
    }
}

/// Reads `probe`; `None` if it is not given, or off.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    breaker: &BreakerSettings,
) -> Option<ProbeConfig> {
    let mut probe = section.section_if_given("probe")?;
    if probe.present && !kind.is_some_and(DependencyKind::is_http) {
        let reason = "it applies to kind = \"http\" and \"model\"";
        section.conflict("probe", reason, "to leave it out");
    }
    let path = string(PATH, is_path).shown_by(show_path);
    let path = probe.get("path", &path);
    if probe.present && !probe.has("path") {
        probe.conflict("path", "a probe needs it", PATH);
    }
    let every = duration(MIN_EVERY..=DAY);
    let every = probe.get_or("every", &every, Duration::from_secs(10));
    let timeout = probe.get_or("timeout", &duration(TICK..=DAY), Duration::from_secs(2));
    let any_good = vec![StatusRange {
        first: 200,
        last: 299,
    }];
    let status = probe.get_or("status", &statuses().list(), any_good);
    if probe.present && !probe.is_bad("status") && status.is_empty() {
        probe.conflict("status", "no answer would be a good one", STATUS);
    }
    if let Some(part) = path.as_deref().and_then(dots) {
        let text =
            format!("it has a part {part}, which goes out as it is; give the path that is meant");
        probe.warn("path", text);
    }
    warn(&probe, (every, timeout, &status), breaker);
    probe.finish();
    Some(ProbeConfig {
        path: path?,
        every,
        timeout,
        status,
    })
}

/// Shows a path without the values of its query, which may hold a token.
fn show_path(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => match text.split_once('?') {
            Some((path, _)) => format!("\"{path}?{MASK}\""),
            None => show(value),
        },
        _ => show(value),
    }
}

/// Shortest time between two probes: more would be load, not a question.
const MIN_EVERY: Duration = Duration::from_millis(100);
const STATUS: &str = "a status such as 200, or a range such as \"200-299\"";

/// Warns of values that work, but not as they are meant.
fn warn(
    probe: &Section<'_>,
    (every, timeout, status): (Duration, Duration, &[StatusRange]),
    breaker: &BreakerSettings,
) {
    if !probe.present {
        return;
    }
    let lease = breaker.half_open.probe_lease;
    if timeout > lease {
        let text = format!("it is cut to breaker.probe_lease, {lease:?}");
        probe.warn("timeout", text);
    }
    if timeout > every {
        let text = "it is longer than probe.every: a slow dependency is asked less often than that";
        probe.warn("timeout", text.to_owned());
    }
    if breaker.slow_call.is_some_and(|slow| slow < timeout) && breaker.slow_rate.is_some() {
        let text = "it is longer than breaker.slow_call: a probe that takes longer is slow, and closes nothing";
        probe.warn("timeout", text.to_owned());
    }
    if status.iter().any(|range| range.last >= 500) {
        let text =
            "a dependency that answers so is taken for well, though calls count it as a failure";
        probe.warn("status", text.to_owned());
    }
}

/// A status, or a range of them.
fn statuses() -> ValueType<'static, StatusRange> {
    let parse = |value: &Value| match &value.kind {
        ValueKind::I64(status) => {
            let status = u16::try_from(*status).ok()?;
            StatusRange::new(status, status)
        }
        ValueKind::String(text) => {
            let (first, last) = text.trim().split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.trim().parse().ok();
            StatusRange::new(number(first)?, number(last)?)
        }
        _ => None,
    };
    let show = |range: &StatusRange| format!("\"{range}\"");
    ValueType::new(STATUS, parse, show)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .chars()
            .all(|letter| letter.is_ascii_graphic() && letter != '#')
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    fn warnings(probe: &str) -> Vec<String> {
        let text = format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\nprobe = {probe}"
        );
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        let all = settings.warnings().iter();
        all.map(|one| format!("{}: {}", one.key, one.text))
            .collect()
    }

    #[test]
    fn brk_13_a_probe_that_works_otherwise_than_it_says_is_warned_of() {
        let none = warnings("{ path = \"/healthz\" }");
        assert_eq!(none, Vec::<String>::new());
        let dots = warnings("{ path = \"/a/../healthz\" }");
        assert_eq!(dots.len(), 1, "{dots:?}");
        assert!(dots[0].contains("probe.path: it has a part .."), "{dots:?}");
        let lease = "breaker.probe_lease = \"10s\"\ntimeout.first_byte = \"10s\"";
        let slow = format!("{{ path = \"/healthz\", timeout = \"20s\" }}\n{lease}");
        let slow = warnings(&slow);
        assert_eq!(slow.len(), 2, "{slow:?}");
        let of_timeout = "dependencies.web.probe.timeout: it is ";
        assert_eq!(
            slow[0],
            format!("{of_timeout}cut to breaker.probe_lease, 10s")
        );
        assert!(slow[1].starts_with(&format!("{of_timeout}longer than probe.every")));
        let sick = warnings("{ path = \"/healthz\", status = [200, \"500-503\"] }");
        assert!(
            sick[0].starts_with("dependencies.web.probe.status"),
            "{sick:?}"
        );
    }
}
