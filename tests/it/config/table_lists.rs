//! Lists of tables in variables, as JSON.

use breakerbox::config::{FallbackKind, Settings};

use super::{nonzero, of_text, problems};

const NAME: &str = "BREAKERBOX__DEPENDENCIES__WEB__FALLBACK";
const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"http://a\"\n";

fn with(text: &str, variables: &[(&str, &str)]) -> breakerbox::config::Loader {
    of_text(text).env_vars(variables.iter().copied())
}

fn load(text: &str, variables: &[(&str, &str)]) -> Settings {
    let loaded = with(text, variables).load();
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn edge_5_a_variable_sets_a_list_of_tables_as_json() {
    let json = r#" [
        {"kind": "stale_cache", "max_entries": 7, "max_age": "5m", "headers": ["x-a", "x-b"]},
        {"kind": "fixed", "status": 203, "body": "[1, 2]", "writes": true}
    ] "#;
    let file = format!("{WEB}[[dependencies.web.fallback]]\nkind = \"fixed\"\nbody = \"file\"\n");
    let settings = load(&file, &[(NAME, json)]);
    let fallbacks = &settings.dependencies["web"].fallbacks;
    assert_eq!(fallbacks.len(), 2);
    let FallbackKind::StaleCache {
        max_entries,
        headers,
        ..
    } = &fallbacks[0].kind
    else {
        panic!("{fallbacks:?}");
    };
    assert_eq!((*max_entries, headers.len()), (nonzero(7), 2));
    let FallbackKind::Fixed { status, body, .. } = &fallbacks[1].kind else {
        panic!("{fallbacks:?}");
    };
    assert_eq!(
        (*status, &**body, fallbacks[1].writes),
        (203, "[1, 2]", true)
    );
    let shown = settings.effective().iter();
    let shown = shown.filter(|one| one.key == "dependencies.web.fallback[1].status");
    let shown: Vec<_> = shown.map(|one| (&*one.value, &*one.origin)).collect();
    assert_eq!(shown, [("203", &*format!("environment variable {NAME}"))]);
    // A single key of one of them counts more.
    let body = format!("{NAME}[1]__BODY");
    let settings = load(WEB, &[(&body, "other"), (NAME, json)]);
    let FallbackKind::Fixed { body, .. } = &settings.dependencies["web"].fallbacks[1].kind else {
        panic!("{settings:?}");
    };
    assert_eq!(body, "other");
    assert!(
        load(&file, &[(NAME, "[]")]).dependencies["web"]
            .fallbacks
            .is_empty()
    );
    assert_eq!(
        load(&file, &[(NAME, "")]).dependencies["web"]
            .fallbacks
            .len(),
        1
    );
}

#[test]
fn edge_5_a_list_that_is_none_is_told_with_its_variable() {
    let many = format!("[{}]", vec!["{\"kind\":\"fixed\"}"; 101].join(","));
    let long = format!(
        "[{{\"kind\":\"fixed\",\"body\":\"{}\"}}]",
        "x".repeat(100_000)
    );
    let deep = "[".repeat(100_000);
    for (json, reason) in [
        ("stale_cache", "no JSON"),
        ("[{\"kind\":\"s3cret\"", "no JSON"),
        ("{\"kind\":\"fixed\"}", "it is no list"),
        ("[\"fixed\"]", "[0] is no table"),
        ("[{\"kind\":\"fixed\"},{}]", "[1] is no table"),
        ("[{\"kind\":\"fixed\",\"status\":1e400}]", "no JSON"),
        (&many, "more than 100 tables"),
        (&long, "more than 100000 bytes"),
        (&deep, "no JSON"),
        ("[{\"kind\":\"fixed\",\"status\":99}]", "fallback[0].status"),
        ("[{\"kind\":\"fixed\",\"body\":null}]", "fallback[0].body"),
        (
            "[{\"kind\":\"fixed\",\"bodi\":\"s3cret\"}]",
            "fallback[0].bodi",
        ),
    ] {
        let told = problems(with(WEB, &[(NAME, json)]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("dependencies.web.fallback"), "{told:?}");
        assert!(told[0].contains(reason), "{reason}: {told:?}");
        assert!(
            told[0].ends_with(&format!("(environment variable {NAME})")),
            "{told:?}"
        );
        assert!(!told[0].contains("s3cret"), "{told:?}");
    }
}
