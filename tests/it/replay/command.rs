//! `breakerbox replay`: its results, its output and its errors.

use serde_json::Value;

use super::*;
use crate::demo::run;

const HEADER: &str = r#"{"header":{"format":1,"version":"0.1.0","started":"today"}}"#;

/// Runs the command, which must succeed, and parses its output.
fn replay(trace: &Path, config: &Path, more: &[&str]) -> Value {
    let (trace, config) = (text(trace), text(config));
    let arguments = [&["replay", &trace, "--config", &config, "--json"], more].concat();
    let (output, out, err) = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

type Configure = fn(&mut DependencySettings);

/// The run with these settings, by position, of the only dependency.
fn run_of(value: &Value, place: usize) -> &Value {
    &value["dependencies"][0]["runs"][place]
}

fn moves_of(run: &Value) -> Vec<Moved> {
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let moves = run["moves"].as_array().expect("a list").iter();
    let moved = |one: &Value| {
        let at = one["at_ms"].as_f64().unwrap_or(-1.0);
        (at, word(one, "from"), word(one, "to"), word(one, "reason"))
    };
    moves.map(moved).collect()
}

#[track_caller]
fn assert_same(replayed: &[Moved], live: &[Moved], tolerance_ms: f64) {
    assert_eq!(replayed.len(), live.len(), "{replayed:#?}\n{live:#?}");
    for (one, other) in replayed.iter().zip(live) {
        assert_eq!((&one.1, &one.2, &one.3), (&other.1, &other.2, &other.3));
        assert!(
            (one.0 - other.0).abs() <= tolerance_ms,
            "{one:?}, {other:?}"
        );
    }
}

#[test]
fn the_settings_of_the_recording_move_the_breaker_as_they_did() {
    let kinds: [(&str, Configure); 4] = [
        ("rate", lively),
        ("run", |settings| {
            settings.breaker.failure_threshold = Some(nonzero(3));
            settings.breaker.open.base = ms(100);
            settings.breaker.half_open.rule =
                breakerbox_policy::HalfOpenRule::Successes(nonzero(2));
        }),
        ("count", |settings| {
            settings.breaker.window = WindowKind::Count { size: nonzero(20) };
            settings.breaker.failure_threshold = Some(nonzero(6));
            settings.breaker.slow_call = Some(ms(25));
            settings.breaker.open.base = ms(333);
        }),
        ("jitter", |settings| {
            lively(settings);
            settings.breaker.open.jitter = 0.5;
        }),
    ];
    for (name, configure) in kinds {
        let folder = Folder::new(&format!("replay-same-{name}"));
        let path = folder.path("trace.jsonl");
        let live = record_200(&path, configure);
        assert!(live.len() >= 6, "{name}: it hardly moved: {live:?}");
        let config = folder.write("config/default.toml", "[dependencies.dep]\n");
        let value = replay(&path, config.parent().expect("a folder"), &[]);
        let recorded = run_of(&value, 0);
        assert_eq!(recorded["settings"], "recorded");
        assert_eq!(
            (&recorded["calls"], &recorded["refused"]),
            (&200.into(), &0.into())
        );
        let replayed = moves_of(recorded);
        if name == "jitter" {
            // Jitter changes only the end of an open period.
            let others = |moves: &[Moved]| -> Vec<Moved> {
                let others = moves.iter().filter(|one| one.2 != "half_open");
                others.cloned().collect()
            };
            assert_same(&others(&replayed), &others(&live), 1.0);
        } else {
            assert_same(&replayed, &live, 1.0);
        }
        let other = run_of(&value, 1);
        assert_ne!(
            moves_of(other),
            replayed,
            "{name}: other settings move otherwise"
        );
    }
}

#[test]
fn brk_9_a_hang_opens_the_breaker_in_the_replay_too() {
    let folder = Folder::new("replay-hang");
    let path = folder.path("trace.jsonl");
    let slow = ms(200);
    let live = run_paused(async || {
        let kept = recorder(&path);
        let live = Live::start(kept.clone(), |settings| {
            let breaker = &mut settings.breaker;
            breaker.window = WindowKind::Count { size: nonzero(20) };
            breaker.failure_threshold = None;
            breaker.slow_call = Some(slow);
            breaker.slow_rate = Some(Rate::new(0.5).expect("a share"));
            breaker.minimum_calls = 10;
            settings.timeout.attempt = Some(ms(2_000));
        })
        .await;
        for number in 0..8 {
            live.client.ask(Do::Answer(number)).await.expect("it works");
        }
        let hanging = (0..12).map(|_| live.client.ask(Do::Hang));
        for asked in futures_util::future::join_all(hanging).await {
            asked.expect_err("it hangs");
        }
        let moves = live.moves();
        live.runtime.finish().await;
        kept.flush();
        moves
    });
    let config = folder.write("config/default.toml", "[dependencies.dep]\n");
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let replayed = moves_of(run_of(&value, 0));
    let quarter = slow.as_secs_f64() * 1e3 / 4.0;
    assert_same(&replayed, &live, quarter);
    assert!(replayed[0].3.contains("(12 still running)"), "{replayed:?}");
    assert!((200.0..202.0).contains(&replayed[0].0), "{replayed:?}");
}

/// A trace of `(at, class)`; each call takes a millisecond.
fn trace(outcomes: &[(u64, &str)]) -> String {
    let line = |(at, class): &(u64, &str)| {
        format!(
            r#"{{"at_ms":{at},"dependency":"dep","duration_ms":1,"class":"{class}","retry_after_ms":null}}"#
        )
    };
    let lines: Vec<String> = outcomes.iter().map(line).collect();
    format!("{HEADER}\n{}\n", lines.join("\n"))
}

#[test]
fn a_breaker_that_stays_open_is_open_to_the_end_of_the_trace() {
    let folder = Folder::new("replay-open");
    let line = |at: u64, name: &str, class: &str| {
        format!(
            r#"{{"at_ms":{at},"dependency":"{name}","duration_ms":1,"class":"{class}","retry_after_ms":null}}"#
        )
    };
    let mut lines = vec![HEADER.to_owned()];
    lines.extend((1..=5).map(|number| line(number * 40, "dep", "failure")));
    // Another dependency is called for longer.
    lines.push(line(7_000, "other", "success"));
    let path = folder.write("trace.jsonl", &(lines.join("\n") + "\n"));
    let config = folder.write(
        "config/default.toml",
        "[dependencies.dep]\n[dependencies.other]\n",
    );
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let replayed = run_of(&value, 0);
    assert_eq!(
        (&replayed["trips"], &replayed["refused"]),
        (&1.into(), &0.into())
    );
    // It opened at 200 ms, for 30 s.
    assert_eq!(replayed["open_ms"], 6_800.0, "{replayed}");
    let arguments = ["replay", &text(&path), "--dependency", "dap"];
    let (output, _, err) = run(&arguments);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("did you mean dep?"), "{err}");
}

#[test]
fn refused_calls_are_counted_by_what_they_would_have_come_to() {
    let folder = Folder::new("replay-counts");
    let path = folder.write(
        "trace.jsonl",
        &trace(&[
            (10, "failure"),
            (20, "failure"),
            (30, "failure"),
            (40, "success"),
            (50, "throttled"),
            (122, "success"),
            (130, "success"),
        ]),
    );
    let strict =
        "[dependencies.dep.breaker]\nfailure_threshold = 2\nrecovery_timeout = \"100ms\"\n";
    let strict = folder.write("strict/default.toml", strict);
    let mild = folder.write("mild/default.toml", "[dependencies.dep]\n");
    let folders = (
        strict.parent().expect("a folder"),
        mild.parent().expect("a folder"),
    );
    let value = replay(&path, folders.0, &["--against", &text(folders.1)]);
    let (run, other) = (run_of(&value, 0), run_of(&value, 1));
    assert_eq!(run["settings"], text(folders.0));
    let figures = [
        "calls",
        "failures",
        "trips",
        "refused",
        "refused_failures",
        "refused_successes",
    ];
    let figures = |run: &Value| figures.map(|key| run[key].as_u64().unwrap_or(u64::MAX));
    assert_eq!(figures(run), [7, 3, 1, 3, 1, 1]);
    assert_eq!(run["open_ms"], 100.0);
    let expected = [
        (
            20.0,
            "closed",
            "open",
            "2 calls in a row failed, at or above 2",
        ),
        (120.0, "open", "half_open", "the open time is over"),
        (122.0, "half_open", "closed", "1 probe succeeded"),
    ];
    let expected = expected.map(|(at, from, to, why)| (at, from.into(), to.into(), why.into()));
    assert_eq!(moves_of(run), expected);
    assert_eq!(figures(other), [7, 3, 0, 0, 0, 0]);
}

#[test]
fn brk_3_a_call_in_flight_when_the_breaker_moves_is_late() {
    let folder = Folder::new("replay-late");
    let long = |at: u64, duration: u64, class: &str| {
        format!(r#"{{"at_ms":{at},"dependency":"dep","duration_ms":{duration},"class":"{class}"}}"#)
    };
    // The second failure ends after the first has opened the breaker and a probe has closed it
    // again.
    let lines = [
        HEADER.to_owned(),
        long(10, 10, "failure"),
        long(112, 1, "success"),
        long(200, 195, "failure"),
        long(210, 0, "failure"),
        // Of several concurrent calls one is the probe.
        long(320, 8, "success"),
        long(320, 6, "success"),
    ];
    let path = folder.write("trace.jsonl", &(lines.join("\n") + "\n"));
    let config =
        "[dependencies.dep.breaker]\nfailure_threshold = 1\nrecovery_timeout = \"100ms\"\n";
    let config = folder.write("config/default.toml", config);
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let run = run_of(&value, 0);
    let times: Vec<f64> = moves_of(run).iter().map(|one| one.0).collect();
    assert_eq!(times, [10.0, 110.0, 112.0, 210.0, 310.0, 320.0]);
    assert_eq!(
        (&run["refused"], &run["refused_successes"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn brk_4_the_next_probe_may_start_when_the_one_before_it_ends() {
    let folder = Folder::new("replay-probes");
    let calls = [(10, "failure"), (111, "success"), (112, "success")];
    let path = folder.write("trace.jsonl", &trace(&calls));
    let config = "[dependencies.dep.breaker]\nfailure_threshold = 1\nrecovery_timeout = \"100ms\"\nhalf_open_attempt_limit = 2\n";
    let config = folder.write("config/default.toml", config);
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let run = run_of(&value, 0);
    assert_eq!(run["refused"], 0);
    let last = moves_of(run).pop().expect("it moved");
    assert_eq!((last.0, &*last.3), (112.0, "2 probes succeeded"));
}

#[test]
fn brk_9_a_hang_opens_the_breaker_once_the_good_calls_are_forgotten() {
    let folder = Folder::new("replay-forgets");
    let mut text = trace(&(1..=30).map(|at| (at, "success")).collect::<Vec<_>>());
    for _ in 0..10 {
        text += r#"{"at_ms":4900,"dependency":"dep","duration_ms":4000,"class":"failure"}"#;
        text.push('\n');
    }
    let path = folder.write("trace.jsonl", &text);
    let config = "[dependencies.dep.breaker]
        window = { kind = \"time\", span = \"2s\", buckets = 10 }
        failure_threshold = \"off\"\nslow_call = \"100ms\"\nslow_rate = 0.5\nminimum_calls = 10\n";
    let config = folder.write("config/default.toml", config);
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let moves = moves_of(run_of(&value, 0));
    let why = "10 of 10 calls were slow (10 still running), at or above 0.5";
    assert_eq!((moves[0].0, &*moves[0].3), (2000.0, why));
}

#[test]
fn settings_that_changed_while_it_was_recorded_change_in_the_replay() {
    let folder = Folder::new("replay-reload");
    let path = folder.path("trace.jsonl");
    let recorder = recorder(&path);
    let name = Arc::from("dep");
    let mut breaker = DependencySettings::default().breaker;
    recorder.settings(&name, Time::ZERO, &breaker);
    for at in [10, 20, 30] {
        bring(&*recorder, &name, at, outcome(Class::Failure, 0));
    }
    breaker.failure_threshold = Some(nonzero(4));
    recorder.settings(&name, Time::from_millis(35), &breaker);
    bring(&*recorder, &name, 40, outcome(Class::Failure, 0));
    recorder.flush();
    let config = folder.write("config/default.toml", "[dependencies.dep]\n");
    let value = replay(&path, config.parent().expect("a folder"), &[]);
    let moves = moves_of(run_of(&value, 0));
    assert_eq!(moves[0].3, "4 calls in a row failed, at or above 4");
    assert_eq!((moves.len(), moves_of(run_of(&value, 1)).len()), (1, 0));
}

#[test]
fn the_table_and_the_moves_are_for_people() {
    let folder = Folder::new("replay-table");
    let path = folder.path("trace.jsonl");
    let live = record_200(&path, lively);
    let config = folder.write("config/default.toml", "[dependencies.another]\n");
    let config = text(config.parent().expect("a folder"));
    let arguments = ["replay", &text(&path), "--config", &config];
    let (output, out, err) = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(
        err.contains("does not name dep: it gets the defaults"),
        "{err}"
    );
    assert!(
        out.contains(": 200 outcomes of 1 dependency, the last one at "),
        "{out}"
    );
    let rows = out
        .lines()
        .filter(|line| line.starts_with("| dep "))
        .count();
    assert_eq!(rows, 2, "{out}");
    for (_, from, to, why) in live {
        assert!(out.contains(&format!("{from} -> {to}: {why}")), "{out}");
    }
    let again = run(&arguments).1;
    assert_eq!(again, out, "the same trace gives the same output");
}

#[test]
fn a_trace_that_cannot_be_read_ends_with_2_and_the_line() {
    let folder = Folder::new("replay-malformed");
    let good = trace(&[(10, "success"), (20, "success")]);
    let config = folder.write("config/default.toml", "");
    let config = text(config.parent().expect("a folder"));
    let cases = [
        (
            good.replace("20,", "\"20\","),
            ":3: invalid type: string \"20\"",
        ),
        (trace(&[(10, "fine")]), ":2: unknown variant `fine`"),
        (String::new(), ":1: it is empty"),
    ];
    for (bad, words) in cases {
        let path = text(&folder.write("trace.jsonl", &bad));
        let (output, out, err) = run(&["replay", &path, "--config", &config]);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert_eq!(out, "");
        assert!(err.contains(&format!("{path}{words}")), "{err}");
        assert!(err.contains("allowed: "), "{err}");
    }
    let missing = text(&folder.path("missing.jsonl"));
    let (output, _, err) = run(&["replay", &missing, "--config", &config]);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("missing.jsonl cannot be read"), "{err}");
    let cut = text(&folder.write("trace.jsonl", &good[..good.len() - 9]));
    let (output, out, err) = run(&["replay", &cut, "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("the last line is incomplete"), "{err}");
    assert!(out.contains(": 1 outcome of"), "{out}");
}

#[test]
fn cfg_1_a_configuration_that_cannot_be_used_ends_with_2_and_all_problems() {
    let folder = Folder::new("replay-config");
    let path = text(&folder.write("trace.jsonl", &trace(&[(10, "success")])));
    let bad = "[dependencies.dep.breaker]\nfailure_rate = 2.0\nslow_cal = \"1s\"\n";
    let one = folder.write("one/default.toml", bad);
    let other = folder.write("other/default.toml", "[dependencies.dep]\nurl = 5\n");
    let (one, other) = (one.parent(), other.parent());
    let (one, other) = (one.map(text).unwrap(), other.map(text).unwrap());
    let (output, out, err) = run(&["replay", &path, "--config", &one, "--against", &other]);
    assert_eq!(output.status.code(), Some(2), "{out}");
    assert_eq!(out, "");
    for key in ["breaker.failure_rate", "breaker.slow_cal", "dep.url"] {
        assert!(err.contains(key), "{key} is not told: {err}");
    }
    let good = folder.write("good/default.toml", "");
    let good = good.parent().map(text).unwrap();
    let (output, _, err) = run(&["replay", &path, "--config", &good, "--dependency", "web"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err.contains("it has no dependency web, allowed: dep"),
        "{err}"
    );
    let (output, _, err) = run(&["replay", &path, "--config", &good, "--dependency", "dep"]);
    assert_eq!(output.status.code(), Some(0), "{err}");
}

#[test]
fn the_command_lines_of_the_documentation_run() {
    let folder = Folder::new("replay-readme");
    folder.write("outcomes.jsonl", &trace(&[(10, "success")]));
    for name in ["config/default.toml", "config.new/default.toml"] {
        folder.write(name, "[dependencies.dep]\n");
    }
    for name in ["config/production.toml", "config.new/production.toml"] {
        folder.write(name, "");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/layers.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let lines = page
        .lines()
        .filter(|line| line.starts_with("breakerbox replay "));
    let mut count = 0;
    for line in lines {
        let arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
        let mut command = crate::demo::breakerbox(&arguments);
        let output = command.current_dir(&folder.0).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {err}");
        count += 1;
    }
    assert!(count >= 2, "the page shows how it is used");
}
