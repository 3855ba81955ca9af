//! EDGE-7: the recorder takes over its own traces only, and a trace takes no more memory than it is
//! long.

use super::*;
use crate::demo::run;

const HEADER: &str = r#"{"header":{"format":1,"version":"0.1.0","started":"today"}}"#;

fn create(path: &Path) -> std::io::Result<Recorder> {
    Recorder::create(path, RecorderOptions::default())
}

#[cfg(unix)]
#[test]
fn edge_7_e8c_the_recorder_touches_nothing_but_its_own_traces() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = Folder::new("recorder-foreign");
    let mode = |name: &str| {
        let found = std::fs::metadata(folder.path(name)).expect("it is there");
        found.permissions().mode() & 0o777
    };
    folder.write("folder/inner", "x");
    folder.write("notes", "notes of mine\n");
    folder.write("target", &format!("{HEADER}\n"));
    symlink(folder.path("target"), folder.path("link")).unwrap();
    symlink("/nowhere", folder.path("dangling")).unwrap();
    for name in ["folder", "notes", "link", "dangling"] {
        let error = create(&folder.path(name)).expect_err(name);
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
        assert!(std::fs::symlink_metadata(folder.path(&format!("{name}.1"))).is_err());
    }
    assert!(folder.path("folder/inner").is_file());
    let text = std::fs::read_to_string(folder.path("notes")).unwrap();
    assert_eq!(text, "notes of mine\n");

    // Its own trace is taken over, and so is a file without a byte; the next one has its place.
    for first in [format!("{HEADER}\n"), String::new()] {
        let path = folder.write("trace", &first);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(create(&path).expect("it is its own"));
        drop(create(&path).expect("it is its own"));
        assert_eq!((mode("trace"), mode("trace.1")), (0o600, 0o600));
        let _ = std::fs::remove_file(&path);
    }
    // The older name may be taken, too.
    folder.write("trace", &format!("{HEADER}\n"));
    folder.write("trace.1", "notes of mine\n");
    create(&folder.path("trace")).expect_err("it would replace a foreign file");
    let text = std::fs::read_to_string(folder.path("trace.1")).unwrap();
    assert_eq!(text, "notes of mine\n");
}

#[test]
fn edge_7_e8d_a_trace_takes_no_memory_by_its_numbers() {
    let folder = Folder::new("replay-absurd");
    let path = folder.path("trace.jsonl");
    let kept = recorder(&path);
    let settings = breakerbox_policy::BreakerSettings {
        window: WindowKind::Time {
            span: Duration::from_secs(10),
            buckets: nonzero(7),
        },
        ..breakerbox_policy::BreakerSettings::default()
    };
    kept.settings(&Arc::from("dep"), Time::ZERO, &settings);
    kept.flush();
    let text = std::fs::read_to_string(&path).unwrap();
    let absurd = text.replace("\"buckets\":7", "\"buckets\":4294967295");
    assert_ne!(absurd, text);
    std::fs::write(&path, absurd).unwrap();
    let error = Trace::read(&path).expect_err("it is too much");
    assert!(
        error
            .to_string()
            .contains("4294967295 buckets are more than"),
        "{error}"
    );
}

#[test]
fn edge_7_e8e_no_name_in_a_trace_moves_a_terminal() {
    let folder = Folder::new("replay-moving");
    let outcome = "{\"at_ms\":1,\"dependency\":\"\u{202e}evil\u{9b}2J\\u001b[2J\",\"duration_ms\":1,\
                   \"class\":\"failure\",\"retry_after_ms\":null}";
    let trace = folder.write("trace.jsonl", &format!("{HEADER}\n{outcome}\n"));
    let config = folder.write("config/default.toml", "");
    let config = config.parent().and_then(Path::to_str).expect("a folder");
    let trace = trace.to_str().expect("a path");
    for more in [&[][..], &["--json"], &["--dependency", "other"]] {
        let arguments = [&["replay", trace, "--config", config], more].concat();
        let (_, out, err) = run(&arguments);
        let shown = format!("{out}{err}");
        assert!(
            !shown.contains(['\u{202e}', '\u{9b}', '\u{1b}']),
            "{shown:?}"
        );
        assert!(shown.contains("202e"), "{shown}");
    }
}
