//! Mistakes that had been accepted in silence, or whose message did not say enough.

use super::mistakes::{Mistake, all_are_told, file, line, variable, warned, with};

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

const SIBLINGS: &[Mistake] = &[
    file(
        "a header twice",
        with!("headers = { X-Team = \"a\", x-team = \"b\" }"),
        &["headers.x-team", "the header x-team once more"],
    ),
    warned(
        "milliseconds where a minute is usual",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\ntimeout = { attempt = 30000, total = 60000 }\n",
        &["timeout.attempt", "did you mean \"30000ms\"?"],
    ),
    warned(
        "a port of the other scheme",
        "[dependencies.weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:443\"\n",
        &["weather.url", "did you mean https://?"],
    ),
    file(
        "percents of a share",
        with!("breaker = { failure_rate = 50 }"),
        &["breaker.failure_rate", "did you mean 0.5?"],
    ),
    file(
        "percents in a text",
        with!("breaker = { failure_rate = \"12.5%\" }"),
        &["did you mean 0.125?"],
    ),
    file(
        "a port to listen on",
        concat!("[gateway]\nbind = 8080\n", with!("")),
        &[
            "gateway.bind",
            "a port alone",
            "did you mean \"127.0.0.1:8080\"?",
        ],
    ),
    file(
        "a port behind a colon",
        concat!("[admin]\nbind = \":7071\"\n", with!("")),
        &["admin.bind", "did you mean \"127.0.0.1:7071\"?"],
    ),
    file(
        "another word for true",
        concat!("[reload]\nwatch = \"on\"\n", with!("")),
        &["reload.watch", "did you mean true?"],
    ),
    variable(
        "quotes of an env-file",
        &[(
            "BREAKERBOX__DEPENDENCIES__WEATHER__TIMEOUT__ATTEMPT",
            "\"3s\"",
        )],
        2,
        &["timeout.attempt", "the quotes are a part of it"],
    ),
];

#[test]
fn cfg_1_edge_7_siblings_of_known_mistakes_are_told() {
    all_are_told(SIBLINGS);
}

const WORDS: &[Mistake] = &[
    file(
        "a hedge after a while",
        with!("hedge = { after = \"20ms\" }"),
        &["did you mean hedge.delay?"],
    ),
    file(
        "a pool of nothing",
        "[dependencies.p]\nkind = \"pool\"\nmembers = []\n",
        &["a list of 1 to 32 dependencies"],
    ),
    file(
        "a group with a member like itself",
        "[dependencies.tool]\nkind = \"mcp_group\"\nmembers = [\"tools\"]\n",
        &["there is no dependency \"tools\", allowed"],
    ),
    file(
        "a rate in place of a table",
        with!("rate_limit = \"100/s\""),
        &["1 problem in", "default.toml:4"],
    ),
    file(
        "an empty fleet",
        concat!("[fleet]\n", with!("")),
        &["fleet.servers", "an empty section"],
    ),
    warned(
        "a breaker of a pool",
        concat!(
            "[dependencies.p]\nkind = \"pool\"\nmembers = [\"weather\"]\n",
            "breaker.failure_threshold = 3\n",
            with!("")
        ),
        &["p.breaker: it has no effect on a pool", "default.toml:4"],
    ),
    file(
        "a version in a name",
        with!("[dependencies.weather.v1]\nkind = \"http\"\nurl = \"http://a\""),
        &["did you mean [dependencies.weather_v1]?"],
    ),
    file(
        "a typo in a name of another system",
        with!("retires = 3"),
        &["did you mean retry.max_attempts?"],
    ),
    file(
        "one key of many",
        with!("ratelimit = { rate = 3 }"),
        &["did you mean rate_limit?, allowed: rate_limit ("],
    ),
    file(
        "a name to listen on",
        concat!("[gateway]\nbind = \"localhost:8080\"\n", with!("")),
        &["did you mean \"127.0.0.1:8080\"?"],
    ),
    file(
        "a host alone",
        "[dependencies.weather]\nkind = \"http\"\nurl = \"api.example.com\"\n",
        &["did you mean \"https://api.example.com\"?"],
    ),
    file(
        "a home",
        concat!("[recorder]\npath = \"~/trace.jsonl\"\n", with!("")),
        &["recorder.path", "~ is not your home here", "1 problem in"],
    ),
    file(
        "a variable in a path",
        with!("credentials = \"$HOME/key.json\""),
        &[
            "weather.credentials",
            "variables are not put in",
            "1 problem in",
        ],
    ),
    warned(
        "a home among arguments",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"tools\"\nargs = [\"-y\", \"~/data\"]\n",
        &["tools.args: argument 2", "~ is not your home here"],
    ),
    line(
        "a home that the shell has left",
        &["init", "--config=~/own", "--url", "http://127.0.0.1:1"],
        &["the shell has left ~ as it is"],
    ),
    file(
        "a server at an address",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\nurl = \"http://127.0.0.1:1\"\n",
        &["did you mean kind = \"mcp_http\"?"],
    ),
    file(
        "a number without an end",
        with!("breaker.failure_rate = 1e300"),
        &["given 1e300,"],
    ),
    file(
        "a relative path",
        with!("tls.ca = \"no-file.pem\""),
        &["may not be read: /", "/no-file.pem"],
    ),
];

#[test]
fn cfg_1_messages_name_what_was_meant() {
    all_are_told(WORDS);
}

#[test]
fn cfg_1_a_dependency_that_only_an_environment_has_is_told_with_its_place() {
    let files = [
        ("config/default.toml", with!("")),
        (
            "config/staging.toml",
            "[dependencies.wether.timeout]\nattempt = \"3s\"\n",
        ),
    ];
    let folder = super::folder_with(&files);
    let (code, _, err) = super::check::check(folder.path(), &["--env", "staging"], &[]);
    assert_eq!(code, 2, "{err}");
    let is_told = err.contains("did you mean weather?") && err.contains("staging.toml:2)");
    assert!(is_told, "{err}");
    let (_, _, err) = super::check::check(folder.path(), &["--env", "production"], &[]);
    assert!(err.contains("an empty production.toml is enough"), "{err}");
}

#[test]
fn edge_7_a_file_that_is_nearly_the_environments_is_told() {
    let files = [
        ("config/default.toml", with!("")),
        ("config/developement.toml", ""),
    ];
    let folder = super::folder_with(&files);
    let (code, _, err) = super::check::check(folder.path(), &[], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("it is not read: the environment is \"development\""),
        "{err}"
    );
}

#[test]
fn cfg_1_a_key_in_place_of_a_certificate_is_told() {
    let text = concat!(
        "[gateway.tls]\ncert = \"key.pem\"\nkey = \"cert.pem\"\n",
        with!("")
    );
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let files = [
        ("config/default.toml", text),
        ("key.pem", key),
        (
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
    ];
    let folder = super::folder_with(&files);
    let (code, _, err) = super::check::check(folder.path(), &[], &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("are tls.cert and tls.key swapped?"), "{err}");
}

const DEAD: &[Mistake] = &[
    warned(
        "no budget of no retries",
        with!("retry = { budget = \"off\" }"),
        &["retry.budget", "retry.max_attempts is 1"],
    ),
    warned(
        "keys that are not obeyed",
        concat!(
            "[gateway]\ntrust = \"off\"\n",
            with!("keys = { max_entries = 5 }")
        ),
        &["weather.keys", "gateway.trust does not name"],
    ),
    warned(
        "keys of models that are not obeyed",
        concat!(
            "[gateway]\ntrust = \"off\"\n",
            "[dependencies.llm]\nkind = \"model\"\napi = \"openai\"\n",
            "url = \"http://127.0.0.1:9\"\nkeys_by = \"header\"\n"
        ),
        &["llm.keys_by", "gateway.trust does not name"],
    ),
    warned(
        "a delay of what does not happen",
        concat!("[reload]\nwatch = false\ndebounce = \"1s\"\n", with!("")),
        &["reload.debounce", "reload.watch"],
    ),
    warned(
        "loops that are not seen",
        with!("remove_headers = [\"Via\"]"),
        &["weather.remove_headers", "leads back here"],
    ),
    warned(
        "loops behind a fixed header",
        with!("headers = { via = \"1.1 me\" }"),
        &["headers.via", "leads back here"],
    ),
    warned(
        "a deadline that is removed",
        with!("remove_headers = [\"breakerbox-deadline-ms\"]"),
        &["weather.remove_headers", "forwarded = false"],
    ),
    warned(
        "one key of all requests",
        with!("headers = { idempotency-key = \"1\" }"),
        &["headers.idempotency-key", "a repeat of the first"],
    ),
    warned(
        "retries without their key",
        with!("remove_headers = [\"idempotency-key\"]\nretry.max_attempts = 2"),
        &["weather.remove_headers", "takes each try for a new one"],
    ),
    warned(
        "a first retry after the end",
        with!(
            "timeout.total = \"1s\"\nretry = { max_attempts = 2, backoff = { base = \"2s\", jitter = \"none\" } }"
        ),
        &["retry.backoff.base", "timeout.total ends it before"],
    ),
    warned(
        "a hedge after the end",
        with!("timeout.total = \"1s\"\nhedge = { delay = \"1s\" }"),
        &["hedge.delay", "timeout.total ends the attempt before"],
    ),
    warned(
        "a hedge after the head",
        with!("timeout.first_byte = \"1s\"\nhedge = { delay = \"2s\" }"),
        &["hedge.delay", "timeout.first_byte ends the attempt before"],
    ),
    warned(
        "a hedge after the head, within the attempt",
        with!("timeout = { attempt = \"10s\", first_byte = \"2s\" }\nhedge = { delay = \"5s\" }"),
        &["hedge.delay", "timeout.first_byte ends the attempt before"],
    ),
    warned(
        "a connection that is kept too long",
        with!("timeout.keep = \"10m\""),
        &["timeout.keep", "no effect above 1m"],
    ),
    warned(
        "a connection of a process",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\ntimeout.connect = \"7s\"\n",
        &["tools.timeout.connect", "no effect on an mcp server"],
    ),
];

#[test]
fn edge_7_e9b_settings_that_can_never_act_are_told() {
    all_are_told(DEAD);
}
