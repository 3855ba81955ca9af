//! Compares what a replay saw with what its scenario asks for. Shared by every replay.

use super::scenario::{Expect, Order};
use crate::report::Verdict;

/// What a replay saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) trace: Vec<String>,
    /// `alive`, `dead:shutdown`, or `start_error:` and the child or the reason.
    pub(crate) supervisor: String,
    /// Name and state (`running#n`, `stopped`, `restarting`) of the top supervisor's children.
    pub(crate) children: Vec<(String, String)>,
    /// The same for every child below.
    pub(crate) below: Vec<(String, String)>,
    /// Whether children that the scenario does not name are no surprise.
    pub(crate) dynamic: bool,
    /// How long the orderly stop took.
    pub(crate) stop_ms: Option<u64>,
    /// The names in start order, where a scenario's invariant needs them.
    pub(crate) names: Vec<String>,
}

/// Compares. The step of a failure is the line of the trace, from 1.
pub(crate) fn verdict(expect: &Expect, seen: &Observed) -> Verdict {
    trace(expect, seen)
        .or_else(|| supervisor(expect, seen))
        .or_else(|| children(expect, seen))
        .or_else(|| stop_time(expect, seen))
        .unwrap_or(Verdict::Ok)
}

fn trace(expect: &Expect, seen: &Observed) -> Option<Verdict> {
    let (wanted, got) = (&expect.trace, &seen.trace);
    match expect.order {
        Order::Exact => lines(wanted, got),
        Order::UnorderedTail => {
            let (wanted, got) = (sorted_tail(wanted), sorted_tail(got));
            lines(&wanted, &got)
        }
        Order::Tolerant => lines(&collapsed(wanted), &collapsed(got)),
        Order::Invariant if lines(wanted, got).is_none() => None,
        Order::Invariant => {
            invariant(got, &seen.names).map(|broken| Verdict::fail(0, broken, got.join(", ")))
        }
    }
}

/// Line by line.
fn lines(wanted: &[String], got: &[String]) -> Option<Verdict> {
    let longest = wanted.len().max(got.len());
    (0..longest).find_map(|at| {
        let end = "the end of the trace".to_owned();
        let (want, have) = (wanted.get(at), got.get(at));
        let same = match (want, have) {
            (Some(want), Some(have)) => same_line(want, have),
            _ => false,
        };
        (!same).then(|| {
            let have = have.unwrap_or(&end);
            let all = got.join(", ");
            Verdict::fail(at + 1, want.unwrap_or(&end), format!("{have} in [{all}]"))
        })
    })
}

/// Whether two lines say the same; why a start by command failed is the harness's own wording.
fn same_line(want: &str, have: &str) -> bool {
    const OTHERS: [&str; 6] = [
        "not_found",
        "running",
        "restarting",
        "already_present",
        "already_started",
        "bad_significant",
    ];
    let reason = |line: &str| {
        let (operation, reason) = line.split_once(" error ")?;
        Some((operation.to_owned(), reason.to_owned()))
    };
    want == have
        || match (reason(want), reason(have)) {
            (Some((wanted, reason)), Some((operation, failed))) => {
                wanted == operation
                    && ["start_failed", "stopping"].contains(&failed.as_str())
                    && !OTHERS.contains(&reason.as_str())
            }
            _ => false,
        }
}

/// The same trace with its last run of lines of one kind sorted.
fn sorted_tail(trace: &[String]) -> Vec<String> {
    let kind = |line: &String| line.split(' ').next().map(ToOwned::to_owned);
    let last = trace.last().and_then(kind);
    let tail = trace
        .iter()
        .rposition(|line| kind(line) != last)
        .map_or(0, |before| before + 1);
    let mut sorted = trace.to_vec();
    sorted[tail..].sort();
    sorted
}

/// The same trace without numbers and repetitions.
fn collapsed(trace: &[String]) -> Vec<String> {
    let mut collapsed: Vec<String> = trace.iter().map(|line| number_free(line)).collect();
    collapsed.dedup();
    collapsed
}

/// The same line without the numbers of incarnations.
fn number_free(line: &str) -> String {
    let words = line.split(' ').filter_map(|word| word.split('#').next());
    words.collect::<Vec<_>>().join(" ")
}

/// What a group's trace breaks: order within rounds, or one incarnation at a time.
fn invariant(trace: &[String], names: &[String]) -> Option<String> {
    let mut live: Vec<&str> = Vec::new();
    let mut last_start = None;
    let mut passes = 0;
    for line in trace {
        let mut words = line.split([' ', '#']);
        let (kind, name) = (words.next()?, words.next().unwrap_or_default());
        match kind {
            "start" => {
                if live.contains(&name) {
                    return Some(format!("one live {name}"));
                }
                live.push(name);
                let place = names.iter().position(|other| other == name);
                if last_start.is_none() {
                    passes += 1;
                } else if last_start >= Some(place) {
                    return Some("starts in start order, after all stops".into());
                }
                last_start = Some(place);
            }
            "stop" | "crash" | "exit" => {
                live.retain(|other| *other != name);
                last_start = None;
            }
            _ => {}
        }
    }
    (passes > 3).then(|| "one or two rounds".into())
}

fn supervisor(expect: &Expect, seen: &Observed) -> Option<Verdict> {
    let (want, have) = (&expect.supervisor, &seen.supervisor);
    let same = want == have
        || (want.starts_with("start_error:duplicate") && have.starts_with("start_error:duplicate"));
    (!same).then(|| Verdict::fail(0, want, have))
}

fn children(expect: &Expect, seen: &Observed) -> Option<Verdict> {
    let wanted = expect.children.as_ref()?;
    let is = |name: &str| {
        let all = seen.children.iter().chain(&seen.below);
        let mut all = all.filter(|(other, _)| other == name);
        all.next().map_or("absent", |(_, state)| state.as_str())
    };
    let wrong = wanted.iter().find(|(name, state)| {
        let (want, have) = match expect.order {
            _ if !state.contains('#') => (state.clone(), number_free(is(name))),
            Order::Tolerant => (number_free(state), number_free(is(name))),
            _ => (state.clone(), is(name).to_owned()),
        };
        let gone = ["gone", "deleted", "undefined", "not_found"].contains(&want.as_str());
        want != have && !(gone && have == "absent")
    });
    if let Some((name, state)) = wrong {
        let (want, have) = (format!("{name} {state}"), format!("{name} {}", is(name)));
        return Some(Verdict::fail(0, want, have));
    }
    let named = |name: &str| wanted.iter().any(|(other, _)| other == name);
    let mut extra = seen.children.iter().filter(|(name, _)| !named(name));
    let extra = extra.next().filter(|_| !seen.dynamic);
    extra.map(|(name, state)| Verdict::fail(0, format!("no {name}"), state))
}

fn stop_time(expect: &Expect, seen: &Observed) -> Option<Verdict> {
    let (least, most) = expect.stop_ms?;
    let took = seen.stop_ms.unwrap_or(u64::MAX);
    let within = (least..=most).contains(&took);
    (!within).then(|| Verdict::fail(0, format!("{least} to {most} ms"), format!("{took} ms")))
}
