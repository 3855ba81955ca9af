//! Mistakes that had been accepted in silence, or whose message did not say enough.

use super::mistakes::{Mistake, all_are_told, file, line, variable, warned};

/// The file with more lines in the section of the dependency.
macro_rules! with {
    ($more:literal) => {
        concat!(
            "[dependencies.weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:19101\"\n",
            $more,
            "\n"
        )
    };
}

const VARIABLES: &[Mistake] = &[
    variable(
        "empty tokens of callers",
        &[("BREAKERBOX__GATEWAY__AUTH__TOKENS", "")],
        2,
        &["gateway.auth.tokens", "set and empty"],
    ),
    variable(
        "an empty token",
        &[("BREAKERBOX__ADMIN__TOKEN", "")],
        2,
        &["admin.token", "set and empty", "leave the variable out"],
    ),
    variable(
        "an empty header",
        &[(
            "BREAKERBOX__DEPENDENCIES__WEATHER__HEADERS__AUTHORIZATION",
            "",
        )],
        2,
        &["set and empty"],
    ),
    variable(
        "an empty address",
        &[("BREAKERBOX__DEPENDENCIES__WEATHER__URL", "")],
        0,
        &["warning: dependencies.weather.url", "counts as not set"],
    ),
];

#[test]
fn edge_7_variables_that_are_empty_or_misnamed_are_told() {
    all_are_told(VARIABLES);
}

#[test]
fn edge_7_an_empty_secret_of_dotenv_is_a_problem_unless_a_variable_sets_it() {
    let name = "BREAKERBOX__ADMIN__TOKEN";
    let folder = super::folder_with(&[
        ("config/default.toml", with!("")),
        (".env", &format!("{name}=\n")),
    ]);
    let (code, _, err) = super::check::check(folder.path(), &[], &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains(".env: BREAKERBOX__ADMIN__TOKEN"), "{err}");
    let set = [(name, "a-token-of-many-letters")];
    let (code, _, err) = super::check::check(folder.path(), &[], &set);
    assert_eq!((code, &*err), (0, ""));
}

const UNITS: &[Mistake] = &[
    file(
        "months for minutes",
        with!("timeout.attempt = \"5M\""),
        &["m is a month, did you mean \"5m\"?", "default.toml:4"],
    ),
    file(
        "months for minutes where off is allowed",
        with!("breaker.recovery_timeout = \"1h 5M\""),
        &["did you mean \"1h 5m\"?"],
    ),
    warned(
        "minutes for milliseconds",
        with!("timeout.attempt = \"500m\""),
        &["8h 20m", "did you mean \"500ms\"?"],
    ),
    warned(
        "a week",
        with!("timeout.total = \"1w\""),
        &["7days", "is the unit right?"],
    ),
    warned(
        "a year",
        with!("timeout.connect = \"1y\""),
        &["1year", "far above"],
    ),
    line(
        "months of an override",
        &["open", "weather", "--reason", "x", "--for", "5M"],
        &["m is a month, did you mean \"5m\"?"],
    ),
];

#[test]
fn edge_7_a_unit_that_was_hardly_meant_is_told() {
    all_are_told(UNITS);
}
