//! Target for fuzzers: the lines of a trace.

use breakerbox_policy::Time;

use super::line::{OutcomeLine, append};
use super::trace::Trace;

/// Reads a trace, and writes the outcomes in it again.
pub(crate) fn traces(data: &[u8]) {
    match Trace::from_bytes(data) {
        Ok(trace) => check(&trace),
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
}

fn check(trace: &Trace) {
    for recording in &trace.recordings {
        for recorded in recording.outcomes.iter().take(10) {
            assert!(recorded.started() <= recorded.ended);
            let line = OutcomeLine {
                at: recorded.ended.since(Time::ZERO),
                dependency: recording.name.as_str().into(),
                duration: recorded.outcome.elapsed,
                class: recorded.outcome.class,
                retry_after: recorded.outcome.retry_after,
                probe: recorded.probe,
            };
            let mut bytes = Vec::new();
            append(&mut bytes, &line).expect("each outcome has a form");
            let text = String::from_utf8(bytes).expect("JSON is UTF-8");
            let again: OutcomeLine<'_> =
                serde_json::from_str(&text).expect("what is written can be read");
            assert_eq!(again.dependency, line.dependency, "{text}");
            assert_eq!(again.class, line.class, "{text}");
            assert_eq!(again.probe, line.probe, "{text}");
            for (again, first) in [
                (Some(again.at), Some(line.at)),
                (Some(again.duration), Some(line.duration)),
                (again.retry_after, line.retry_after),
            ] {
                // Exact up to 104 days, and nearly so beyond.
                let is_near = match (again, first) {
                    (Some(again), Some(first)) => again.abs_diff(first).as_micros() <= 10,
                    (again, first) => again == first,
                };
                assert!(is_near, "{again:?} is not {first:?}: {text}");
            }
        }
        assert!(recording.outcomes.is_sorted_by_key(|one| one.ended));
    }
}
