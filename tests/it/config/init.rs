//! `breakerbox init` and `schema` as a newcomer runs them.

use breakerbox_actors::printable;

use super::check::check;
use super::folder_with;
use crate::demo::run;

#[test]
fn ops_1_init_writes_what_check_accepts_and_overwrites_nothing() {
    let folder = folder_with(&[]);
    let made = folder.path().join("made");
    let made = made.to_str().expect("a path in UTF-8");
    let url = "http://127.0.0.1:19101/weather";
    let arguments = ["init", "--config", made, "--name", "weather", "--url", url];
    let (output, out, err) = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(
        out.contains(&format!("breakerbox serve --config {}", printable(made))),
        "{out}"
    );
    assert!(
        out.contains("curl -i http://127.0.0.1:7070/weather/"),
        "{out}"
    );

    let path = folder.path().join("made/default.toml");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(
        text.starts_with("#:schema ./breakerbox.schema.json\n"),
        "{text}"
    );
    assert!(text.lines().count() <= 12, "{text}");
    let schema = folder.path().join("made/breakerbox.schema.json");
    let schema = std::fs::read_to_string(schema).expect("a file");
    assert_eq!(schema, breakerbox::config::schema());
    let (code, out, err) = check(folder.path(), &["--config", "made"], &[]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(
        out.contains("dependencies.weather.url") && out.contains(url),
        "{out}"
    );

    let (output, _, err) = run(&arguments);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("is there already and stays as it is"), "{err}");
    // One more service is a section, which is ready to be added.
    let one_more = err.split_once("by hand:\n\n").expect("a section").1;
    assert!(one_more.starts_with("[dependencies.weather]\n"), "{err}");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
}

#[test]
fn ops_1_init_tells_what_is_wrong_and_writes_nothing_then() {
    let folder = folder_with(&[]);
    let made = folder.path().join("made");
    let place = made.to_str().expect("a path in UTF-8");
    let cases: [(&[&str], &str); 4] = [
        (&[], "breakerbox init --name NAME --url URL"),
        (
            &["--name", "weather"],
            "breakerbox init --name NAME --url URL",
        ),
        (
            &["--url", "localhost:80"],
            "the address \"localhost:80\" cannot be used",
        ),
        (
            &["--url", "http://a", "--name", "A b"],
            "the name \"A b\" cannot be used",
        ),
    ];
    for (more, words) in cases {
        let arguments = [&["init", "--config", place], more].concat();
        let (output, out, err) = run(&arguments);
        assert_eq!((output.status.code(), &*out), (Some(2), ""), "{err}");
        assert!(err.contains(words), "{err}");
        assert!(!made.exists(), "{more:?}");
    }
}

#[test]
fn ops_1_schema_prints_the_schema() {
    let (output, out, err) = run(&["schema"]);
    assert_eq!((output.status.code(), &*err), (Some(0), ""));
    assert_eq!(out, breakerbox::config::schema());
}
