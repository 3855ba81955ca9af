use std::time::Duration;

use super::*;

const HEADER: &str = r#"{"header":{"format":1,"version":"0.1.0","started":"today"}}"#;

fn read(text: &str) -> Result<Trace, LineTag> {
    Trace::from_reader(text.as_bytes())
}

fn problem(text: &str) -> (u64, String) {
    let place = "t".to_owned();
    let kind = read(text).expect_err("it cannot be read");
    let error = TraceError { place, kind };
    (error.line().unwrap_or_default(), error.to_string())
}

fn outcome(at: f64, dependency: &str) -> String {
    format!(r#"{{"at_ms":{at},"dependency":"{dependency}","duration_ms":1.5,"class":"success"}}"#)
}

#[test]
fn outcomes_are_sorted_by_their_ends_and_kept_apart_by_dependency() {
    let lines = [
        outcome(3.0, "a"),
        outcome(2.0, "b\\n"),
        outcome(1.25, "a"),
        HEADER.to_owned(),
    ];
    let trace = read(&format!("{HEADER}\n{}\n", lines.join("\n"))).unwrap_or_else(|_| panic!());
    let ends = |place: usize| -> Vec<u64> {
        let outcomes = &trace.recordings[place].outcomes;
        outcomes.iter().map(|one| one.ended.as_nanos()).collect()
    };
    assert_eq!(ends(0), [1_250_000, 3_000_000]);
    assert_eq!(ends(1), [2_000_000]);
    assert_eq!(trace.recordings[1].name, "b\n");
    let first = &trace.recordings[0].outcomes[0];
    assert_eq!(first.outcome.elapsed, Duration::from_micros(1500));
    assert_eq!(first.started(), Time::ZERO, "never before the start");
}

#[test]
fn a_line_that_cannot_be_read_is_told_with_its_number_and_what_is_allowed() {
    let good = outcome(1.0, "a");
    let cases = [
        ("", 1, "it is empty"),
        ("{}\n", 1, "it is not the header"),
        (&format!("{good}\n"), 1, "it is not the header"),
        (
            &HEADER.replace(":1,", ":2,"),
            1,
            "format 2 is unknown, given",
        ),
        (
            &format!("{HEADER}\n{good}\n\n{good}\n"),
            3,
            "EOF while parsing a value",
        ),
        (
            &format!("{HEADER}\n{}\n{good}", good.replace("success", "succes")),
            2,
            "unknown variant `succes`, expected one of `success`, `failure`",
        ),
        (
            &format!("{HEADER}\n{}\n", good.replace("1.5", "-1")),
            2,
            "-1 is no number of milliseconds from 0",
        ),
        (
            &format!("{HEADER}\n{}\n", r#"{"settings":{"at_ms":1}}"#),
            2,
            "missing field `dependency`",
        ),
        (
            &format!("{HEADER}\n{}\n", HEADER.replace("today", "yesterday")),
            2,
            "another trace begins",
        ),
    ];
    for (text, number, words) in cases {
        let (line, told) = problem(text);
        assert_eq!(line, number, "{told}");
        assert!(
            told.starts_with(&format!("t:{number}: ")) && told.contains(words),
            "{told}"
        );
        assert!(told.contains("allowed: "), "{told}");
    }
}

#[test]
fn a_last_line_that_was_cut_off_is_left_out() {
    let good = outcome(1.0, "a");
    for end in 1..good.len() {
        let text = format!("{HEADER}\n{good}\n{}", &good[..end]);
        let trace = read(&text).unwrap_or_else(|_| panic!("cut at {end}"));
        assert!(trace.is_cut_off);
        assert_eq!(trace.recordings[0].outcomes.len(), 1);
    }
    let whole = read(&format!("{HEADER}\n{good}")).unwrap_or_else(|_| panic!());
    assert!(!whole.is_cut_off);
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    let (line, told) = problem(&format!("{HEADER}\n{}", "x".repeat(MAX_LINE + 2)));
    assert_eq!(line, 2);
    assert!(told.contains("the line is too long"), "{told}");
}
