//! OPS-A and OPS-H: mistakes of newcomers get the words that repair them, and a setting that does
//! nothing is told.

use super::check::check;
use super::folder_with;

const WEATHER: &str = "[dependencies.weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:19101\"\n";
const SEARCH: &str =
    "[dependencies.web_search]\nkind = \"http\"\nurl = \"http://127.0.0.1:19101\"\n";

/// Words that a message must have, in small letters; one that begins with `!` must not be there.
type Words = &'static [&'static str];

/// Lines of the dependency `weather`, and the words. Without a first line, the text is the whole file.
const REFUSED: &[(&str, Words)] = &[
    (
        "timeout = { attempt = \"1s\", attempt = \"2s\" }",
        &[
            "dependencies.weather.timeout.attempt is there twice, first at line 4, column 13",
            "4 | timeout = { attempt = \"1s\", attempt = \"2s\" }",
        ],
    ),
    (
        "timeout.attempt = \"1s\"\n[dependencies.weather.timeout]\ntotal = \"2s\"",
        &["dependencies.weather.timeout is there already: line 4 sets"],
    ),
    (
        "[dependencies.weather.fallback]\nkind = \"stale_cache\"",
        &[
            "[[dependencies.weather.fallback]] with two brackets",
            "!stale_cache",
        ],
    ),
    (
        "fallback = \"stale_cache\"",
        &["[[dependencies.weather.fallback]]"],
    ),
    (
        "timeout = \"3s\"",
        &["did you mean timeout = { attempt = \"3s\" }?"],
    ),
    (
        "timeout = \"hunter2\"",
        &["timeout = { attempt = ", "!hunter2"],
    ),
    ("retry = 3", &["did you mean retry = { max_attempts = 3 }?"]),
    (
        "breaker = 5",
        &["did you mean breaker = { failure_threshold = 5 }?"],
    ),
    (
        "breaker = \"30s\"",
        &["did you mean breaker = { recovery_timeout = \"30s\" }?"],
    ),
    (
        "breaker = \"off\"",
        &[
            "did you mean override = { mode = \"disable\"",
            "!failure_threshold = 5",
        ],
    ),
    ("enabled = false", &["mode = \"open\"", "!\"off\" in place"]),
    (
        "bulkhead = 10",
        &["did you mean bulkhead = { max_concurrent = 10 }?"],
    ),
    (
        "rate_limit = 100",
        &["did you mean rate_limit = { rate = 100 }?"],
    ),
    (
        "hedge = \"50ms\"",
        &["did you mean hedge = { delay = \"50ms\" }?"],
    ),
    ("probe = \"/health\"", &["did you mean probe = { path = "]),
    (
        "[[dependencies.weather.breaker]]\nfailure_threshold = 3",
        &["did you mean [dependencies.weather.breaker]?"],
    ),
    ("breaker.window = \"counts\"", &["did you mean \"count\"?"]),
    (
        "probe = { path = \"/h\", interval = \"10s\" }",
        &["did you mean probe.every?"],
    ),
    (
        "retry = { max_attempts = 3, backoff = { initial = \"1s\" } }",
        &["did you mean retry.backoff.base?"],
    ),
    (
        "rate_limit = { rate = 20, window = \"1m\" }",
        &["did you mean rate_limit.per?"],
    ),
    (
        "[[dependencies.weather.fallback]]\nkind = \"stale_cache\"\nttl = \"1h\"",
        &["did you mean fallback.max_age?"],
    ),
    (
        "\"timeout.attempt\" = \"5s\"",
        &["the quotes make one name of it, did you mean timeout.attempt"],
    ),
    ("breaker.failure_threshold = 5.0", &["given 5.0"]),
    (
        "breaker.failure_threshold = false",
        &["did you mean \"off\"?"],
    ),
    (
        "breaker.failure_threshold = \"Off\"",
        &["did you mean \"off\"?"],
    ),
    (
        "retry.backoff.jitter = \"Full\"",
        &["did you mean \"full\"?"],
    ),
    (
        "classify.failure = [\"5XX\", \"timeout\"]",
        &["did you mean \"5xx\"?"],
    ),
    ("when_all_down = \"refused\"", &["did you mean \"refuse\"?"]),
    (
        "[[dependencies.weather.fallback]]\nkind = \"stale-cache\"",
        &["did you mean \"stale_cache\"?"],
    ),
    (
        "[[dependencies.weather.fallbacks]]\nkind = \"fixed\"",
        &["did you mean fallback?"],
    ),
    ("workers.give_up = \"Park\"", &["did you mean \"park\"?"]),
    (
        "override = { mode = \"Open\", reason = \"a move\" }",
        &["did you mean \"open\"?"],
    ),
    ("idempotent = true", &["a list of", "\"get\""]),
];

/// Whole files.
const FILES: &[(&str, Words)] = &[
    (
        "[dependency.weather]\nkind = \"http\"\nurl = \"http://a\"\n",
        &[
            "did you mean dependencies?",
            "allowed: [dependencies.weather]",
            "!consumers",
        ],
    ),
    (
        "[[dependencies]]\nname = \"weather\"\nkind = \"http\"\n",
        &[
            "two brackets is a list",
            "did you mean [dependencies.weather]?",
        ],
    ),
    (
        "[dependencies]\nkind = \"http\"\nurl = \"http://a\"\n",
        &["[dependencies."],
    ),
    (
        "[dependencies.weather]\nkind = \"HTTP\"\nurl = \"http://127.0.0.1:1\"\n",
        &["did you mean \"http\"?"],
    ),
    (
        "[dependencies.weather]\nkind = \"mcp-stdio\"\ncommand = \"x\"\n",
        &["did you mean \"mcp_stdio\"?"],
    ),
    ("gateway = \"0.0.0.0:80\"\n", &["gateway = { bind = "]),
    ("[admin]\nport = 9000\n", &["did you mean admin.bind?"]),
    (
        "[timeout]\nattempt = \"5s\"\n",
        &["did you mean dependencies.name.timeout?"],
    ),
    (
        "[gateway]\ntimeout = \"30s\"\n",
        &["did you mean dependencies.name.timeout?"],
    ),
    (
        "[gateway]\nauth = { token = \"a-token-of-sixteen-letters\" }\n",
        &["did you mean tokens?"],
    ),
    (
        "[admin]\ntoken = \"größer-als-sechzehn\"\n",
        &["admin.token", "ascii"],
    ),
    (
        "[gateways]\nbind = \"127.0.0.1:1\"\n",
        &["did you mean gateway?", "allowed: [gateway]"],
    ),
];

/// Settings that do nothing: lines of `weather`, and the begin of the warning.
const DEAD: &[(&str, &str)] = &[
    (
        "idempotent = [\"get\"]",
        "idempotent: get is no method of a request: they are in capitals, did you mean get?",
    ),
    (
        "idempotent = [\"GETT\"]",
        "idempotent: gett is no known method, did you mean get?",
    ),
    (
        "[[dependencies.weather.fallback]]\nkind = \"fixed\"\n[[dependencies.weather.fallback]]\nkind = \"stale_cache\"",
        "fallback[1].kind: it is never reached: fallback[0] is fixed",
    ),
    (
        "timeout = { attempt = \"2s\", first_byte = \"10s\" }",
        "timeout.first_byte: it has no effect: timeout.attempt is shorter, 2s",
    ),
    (
        "timeout = { attempt = \"2s\", connect = \"10s\" }",
        "timeout.connect: it has no effect: timeout.attempt is shorter, 2s",
    ),
    (
        "timeout = { total = \"2s\", idle = \"10s\" }",
        "timeout.idle: it has no effect: timeout.total is shorter, 2s",
    ),
    (
        "bulkhead = { max_queue = 0, max_wait = \"5s\" }",
        "bulkhead.max_wait: it has no effect: bulkhead.max_queue is 0",
    ),
    (
        "[[dependencies.weather.fallback]]\nkind = \"stale_cache\"\nwrites = true",
        "fallback[0].writes: it has no effect: a cache keeps no answers to writes",
    ),
    (
        "fleet = { trips = \"any\" }",
        "fleet.trips: it has no effect without a section [fleet]",
    ),
];

/// Settings that look like those above, and do something.
const ALIVE: &[&str] = &[
    "idempotent = [\"GET\", \"PROPFIND\", \"PURGE\"]",
    "timeout = { attempt = \"2s\", first_byte = \"2s\", connect = \"1s\" }",
    "timeout = { attempt = \"2s\", idle = \"10s\" }",
    "bulkhead = { max_queue = 0 }",
    "[[dependencies.weather.fallback]]\nkind = \"fixed\"\non = [\"refused\"]\n[[dependencies.weather.fallback]]\nkind = \"stale_cache\"",
    "[[dependencies.weather.fallback]]\nkind = \"fixed\"\n[[dependencies.weather.fallback]]\nkind = \"fixed\"\nwrites = true",
];

/// Returns what is missing in the text, or wrong.
fn faults(said: &str, words: Words) -> Vec<&'static str> {
    let low = said.to_lowercase();
    let is_wrong = |word: &&&str| match word.strip_prefix('!') {
        Some(never) => low.contains(never),
        None => !low.contains(**word),
    };
    words.iter().filter(is_wrong).copied().collect()
}

fn refused(text: &str, variables: &[(&str, &str)], words: Words) -> Option<String> {
    let folder = folder_with(&[("config/default.toml", text)]);
    let (code, _, err) = check(folder.path(), &[], variables);
    let faults = faults(&err, words);
    let is_good = code == 2 && faults.is_empty();
    (!is_good).then(|| format!("exit {code}, {faults:?} in:\n{text}{err}"))
}

#[test]
fn cfg_1_ops_a_mistakes_of_newcomers_get_the_words_that_repair_them() {
    let lines = REFUSED.iter().filter_map(|(lines, words)| {
        let text = format!("{WEATHER}{lines}\n");
        refused(&text, &[], words)
    });
    let files = FILES
        .iter()
        .filter_map(|(text, words)| refused(text, &[], words));
    let bad: Vec<String> = lines.chain(files).collect();
    assert!(bad.is_empty(), "{}\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn cfg_1_ops_a_a_variable_with_one_underscore_too_many_names_the_dependency() {
    let variable = [(
        "BREAKERBOX__DEPENDENCIES__WEB__SEARCH__TIMEOUT__ATTEMPT",
        "1s",
    )];
    let words: Words = &[
        "no file has this dependency, did you mean web_search?",
        "breakerbox__dependencies__web_search__",
    ];
    assert_eq!(refused(SEARCH, &variable, words), None);
    let singular = [("BREAKERBOX__DEPENDENCY__WEATHER__TIMEOUT__ATTEMPT", "1s")];
    let words: Words = &[
        "did you mean dependencies?",
        "[dependencies.weather]",
        "!consumers",
    ];
    assert_eq!(refused(WEATHER, &singular, words), None);
}

#[test]
fn cfg_1_ops_a_a_section_without_keys_is_not_said_to_be_built_in() {
    let text = format!("[gatway]\n{WEATHER}");
    let words: Words = &["did you mean gateway?", "an empty section", "!built-in"];
    assert_eq!(refused(&text, &[], words), None);
}

#[test]
fn edge_7_ops_h_a_command_with_its_arguments_is_told() {
    let text = "[dependencies.docs]\nkind = \"mcp_stdio\"\ncommand = \"npx -y hunter2\"\n";
    let folder = folder_with(&[("config/default.toml", text)]);
    let (code, _, err) = check(folder.path(), &[], &[]);
    assert_eq!(code, 0, "{err}");
    for words in ["dependencies.docs.command", "its arguments into args"] {
        assert!(err.contains(words), "{err}");
    }
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn edge_7_ops_h_a_setting_that_does_nothing_is_told() {
    let warnings = |lines: &str| {
        let text = format!("{WEATHER}{lines}\n");
        let folder = folder_with(&[("config/default.toml", &text)]);
        let (code, _, err) = check(folder.path(), &[], &[]);
        assert_eq!(code, 0, "{lines}: {err}");
        err.to_lowercase()
    };
    for (lines, words) in DEAD {
        let said = warnings(lines);
        let words = format!("warning: dependencies.weather.{words}");
        assert!(said.contains(&words), "{lines}:\n{said}");
        assert_eq!(said.lines().count(), 1, "{lines}:\n{said}");
    }
    for lines in ALIVE {
        assert_eq!(warnings(lines), "", "{lines}");
    }
}
