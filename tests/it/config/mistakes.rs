//! Mistakes that people make, and the words by which each can be repaired from its message alone.

use std::path::Path;
use std::process::Command;

use super::check::check;
use super::folder_with;

/// A mistake: its description, the file or the variables or the arguments, the exit code, and words
/// that the message must have, in any case.
pub(super) struct Mistake {
    what: &'static str,
    text: &'static str,
    variables: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    code: i32,
    words: &'static [&'static str],
}

pub(super) const fn file(
    what: &'static str,
    text: &'static str,
    words: &'static [&'static str],
) -> Mistake {
    Mistake {
        what,
        text,
        variables: &[],
        arguments: &["check"],
        code: 2,
        words,
    }
}

/// A mistake that can be used, and is warned of.
pub(super) const fn warned(
    what: &'static str,
    text: &'static str,
    words: &'static [&'static str],
) -> Mistake {
    Mistake {
        code: 0,
        ..file(what, text, words)
    }
}

pub(super) const fn variable(
    what: &'static str,
    variables: &'static [(&'static str, &'static str)],
    code: i32,
    words: &'static [&'static str],
) -> Mistake {
    Mistake {
        what,
        text: GOOD,
        variables,
        arguments: &["check"],
        code,
        words,
    }
}

pub(super) const fn line(
    what: &'static str,
    arguments: &'static [&'static str],
    words: &'static [&'static str],
) -> Mistake {
    Mistake {
        what,
        text: GOOD,
        variables: &[],
        arguments,
        code: 2,
        words,
    }
}

const GOOD: &str = "[dependencies.weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:19101\"\n";

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
pub(super) use with;

const MISTAKES: &[Mistake] = &[
    // a key in the wrong section
    file(
        "a breaker's key in the dependency",
        with!("recovery_timeout = \"30s\""),
        &["breaker.recovery_timeout", "default.toml:4"],
    ),
    file(
        "a timeout's key in the dependency",
        with!("attempt = \"3s\""),
        &["timeout.attempt"],
    ),
    file(
        "a retry's key in the breaker",
        with!("breaker.max_attempts = 3"),
        &["belongs to", "retry.max_attempts"],
    ),
    file(
        "a bulkhead's key in the dependency",
        with!("max_concurrent = 3"),
        &["bulkhead.max_concurrent"],
    ),
    file(
        "a gateway's key at the top",
        "bind = \"127.0.0.1:1\"\n",
        &["gateway.bind"],
    ),
    file(
        "admin's token in the gateway",
        "[gateway]\ntoken = \"a-token-of-many-letters\"\n",
        &["admin.token"],
    ),
    file(
        "a breaker at the top",
        "[breaker]\nfailure_threshold = 3\n",
        &["dependencies.name.breaker"],
    ),
    file(
        "a dependency at the top",
        "[weather]\nkind = \"http\"\nurl = \"http://a\"\n",
        &["[dependencies.weather]"],
    ),
    file(
        "a fallback's key in the dependency",
        with!("max_age = \"1h\""),
        &["fallback.max_age"],
    ),
    // names of other systems
    file("retries", with!("retries = 3"), &["retry.max_attempts"]),
    file(
        "max_retries",
        with!("max_retries = 3"),
        &["retry.max_attempts"],
    ),
    file(
        "a reset timeout",
        with!("breaker.reset_timeout = \"5s\""),
        &["breaker.recovery_timeout"],
    ),
    file(
        "a sleep window",
        with!("breaker.sleepWindow = \"5s\""),
        &["breaker.recovery_timeout"],
    ),
    file(
        "a wait in the open state",
        with!("breaker.waitDurationInOpenState = \"5s\""),
        &["breaker.recovery_timeout"],
    ),
    file(
        "a volume threshold",
        with!("breaker.requestVolumeThreshold = 20"),
        &["breaker.minimum_calls"],
    ),
    file(
        "an error percentage",
        with!("breaker.errorThresholdPercentage = 50"),
        &["breaker.failure_rate"],
    ),
    file(
        "max_fails",
        with!("max_fails = 3"),
        &["breaker.failure_threshold"],
    ),
    file(
        "a circuit breaker",
        with!("circuit_breaker = { failure_threshold = 3 }"),
        &["breaker"],
    ),
    file(
        "an endpoint",
        "[dependencies.weather]\nkind = \"http\"\nendpoint = \"http://a\"\n",
        &["did you mean url"],
    ),
    file(
        "a type",
        "[dependencies.weather]\ntype = \"http\"\nurl = \"http://a\"\n",
        &["did you mean kind"],
    ),
    file(
        "services",
        "[services.weather]\nkind = \"http\"\n",
        &["did you mean dependencies"],
    ),
    file(
        "a port of a server",
        "[server]\nport = 80\n",
        &["did you mean gateway"],
    ),
    file(
        "a port of the gateway",
        "[gateway]\nport = 80\n",
        &["gateway.bind"],
    ),
    file(
        "a level of the log",
        "log_level = \"debug\"\n",
        &["rust_log"],
    ),
    file(
        "a rate of requests",
        with!("requests_per_second = 3"),
        &["rate_limit.rate"],
    ),
    file(
        "an enabled breaker",
        with!("breaker.enabled = false"),
        &["\"off\""],
    ),
    file("an api key", with!("api_key = \"hunter2\""), &["headers"]),
    // spelling
    file(
        "a letter is missing",
        with!("breaker.failure_treshold = 3"),
        &["did you mean failure_threshold?"],
    ),
    file(
        "capitals",
        with!("breaker.failureThreshold = 3"),
        &["did you mean failure_threshold?"],
    ),
    file(
        "a hyphen",
        with!("breaker.failure-threshold = 3"),
        &["did you mean failure_threshold?"],
    ),
    file(
        "a unit in the name",
        with!("timeout.attempt_ms = 500"),
        &["did you mean attempt?", "unit"],
    ),
    file(
        "a section with a typo",
        "[dependancies.weather]\nkind = \"http\"\n",
        &["dependencies"],
    ),
    file(
        "a kind with a capital",
        "[dependencies.weather]\nkind = \"HTTP\"\nurl = \"http://a\"\n",
        &["\"http\" or"],
    ),
    file(
        "a name with a capital",
        "[dependencies.Weather]\nkind = \"http\"\nurl = \"http://a\"\n",
        &["lower-case"],
    ),
    file(
        "a fallback's name with a typo",
        with!("[[dependencies.weather.fallback]]\nkind = \"dependency\"\nname = \"wether\""),
        &["did you mean weather?"],
    ),
    // values
    file(
        "a threshold of nothing",
        with!("breaker.failure_threshold = 0"),
        &["1 to 1000000"],
    ),
    file(
        "a rate in percent",
        with!("breaker.failure_rate = 50"),
        &["from 0 to 1"],
    ),
    file(
        "a duration in words",
        with!("timeout.attempt = \"soon\""),
        &["250ms", "default.toml:4"],
    ),
    file(
        "a negative duration",
        with!("timeout.attempt = -5"),
        &["-5 s", "from 1ms"],
    ),
    file(
        "a duration in place of a section",
        with!("timeout = \"5s\""),
        &["a table of keys", "attempt", "total"],
    ),
    file(
        "a number in place of a section",
        with!("retry = 3"),
        &["a table of keys", "max_attempts"],
    ),
    file(
        "an address without a scheme",
        "[dependencies.weather]\nkind = \"http\"\nurl = \"localhost:9001\"\n",
        &["http://127.0.0.1:9001"],
    ),
    file(
        "null for no limit",
        with!("timeout.attempt = null"),
        &["leave the key out"],
    ),
    file(
        "none for no limit",
        with!("timeout.attempt = \"none\""),
        &["did you mean \"off\"?"],
    ),
    file(
        "a count with a point",
        with!("breaker.failure_threshold = 5.0"),
        &["did you mean 5, without a point?"],
    ),
    file(
        "gRPC as a kind",
        "[dependencies.weather]\nkind = \"grpc\"\nurl = \"http://127.0.0.1:9001\"\n",
        &["\"http\", with http_version = \"2\""],
    ),
    file(
        "a name with capitals",
        "[dependencies.Weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:9001\"\n",
        &["did you mean weather?"],
    ),
    line(
        "a folder as a name",
        &["check", "./config"],
        &["--config dir for the folder"],
    ),
    line(
        "an option before the command",
        &["--config", "config", "check"],
        &["behind a command that knows it"],
    ),
    file(
        "no address",
        "[dependencies.weather]\nkind = \"http\"\n",
        &["weather.url", "needs it"],
    ),
    file(
        "a port alone to listen on",
        "[gateway]\nbind = \":8080\"\n",
        &["127.0.0.1:7070"],
    ),
    file(
        "an attempt longer than the call",
        with!("timeout = { attempt = \"9s\", total = \"3s\" }"),
        &["longer than timeout.total", "3s"],
    ),
    file(
        "admin for all without a token",
        "[admin]\nbind = \"0.0.0.0:7071\"\n",
        &["admin.token"],
    ),
    file(
        "a token that is too short",
        "[admin]\ntoken = \"short\"\n",
        &["16 letters"],
    ),
    file(
        "a key of the command for http",
        with!("command = \"npx\""),
        &["command", "mcp_stdio"],
    ),
    file(
        "no kind",
        "[dependencies.weather]\nurl = \"http://127.0.0.1:19101\"\n",
        &["kind", "http"],
    ),
    file(
        "a log to nowhere",
        "[gateway]\naccess_log = \"stderr\"\n",
        &["\"stdout\"", "\"off\""],
    ),
    warned(
        "milliseconds meant, seconds taken",
        with!("timeout.attempt = 5000"),
        &["1h 23m 20s", "5000ms", "warning"],
    ),
    warned(
        "a retry's rules without retries",
        with!("retry.on = [\"timeout\"]"),
        &["retry.max_attempts is 1"],
    ),
    warned(
        "a breaker without a rule",
        with!("breaker.failure_threshold = \"off\""),
        &["never opens"],
    ),
    // TOML
    file(
        "a quote is missing",
        "[dependencies.weather]\nkind = \"http\nurl = \"http://a\"\n",
        &["line 2, column", "default.toml:2:", "kind = \"http"],
    ),
    file(
        "a bracket is missing",
        "[dependencies.weather\nkind = \"http\"\n",
        &["line 1, column", "[dependencies.weather"],
    ),
    file(
        "no quotes",
        "[dependencies.weather]\nkind = http\n",
        &["line 2, column", "kind = http"],
    ),
    file(
        "a colon",
        "[dependencies.weather]\nkind: \"http\"\n",
        &["line 2, column", "have = between them"],
    ),
    file(
        "a section twice",
        "[dependencies.weather]\nkind = \"http\"\n[dependencies.weather]\nkind = \"http\"\n",
        &["dependencies.weather is there twice", "line 1"],
    ),
    file(
        "a key twice",
        with!("kind = \"http\""),
        &["dependencies.weather.kind is there twice", "line 2"],
    ),
    file(
        "YAML",
        "dependencies:\n  weather:\n    kind: http\n",
        &["this is yaml", "toml"],
    ),
    file(
        "JSON",
        "{\"dependencies\": {\"weather\": {}}}\n",
        &["this is json", "toml"],
    ),
    file("nothing", "", &["none to protect", "[dependencies.name]"]),
    // variables
    variable(
        "one underscore in a variable",
        &[(
            "BREAKERBOX__DEPENDENCIES__WEATHER_BREAKER__FAILURE_THRESHOLD",
            "3",
        )],
        2,
        &[
            "weather_breaker",
            "no file has this dependency",
            "breakerbox__dependencies__weather__breaker",
        ],
    ),
    variable(
        "a dependency with a typo in a variable",
        &[("BREAKERBOX__DEPENDENCIES__WETHER__RETRY__MAX_ATTEMPTS", "3")],
        2,
        &["did you mean weather?"],
    ),
    variable(
        "a section with one underscore in a variable",
        &[("BREAKERBOX__DEPENDENCIES__WEATHER__TIMEOUT_ATTEMPT", "3s")],
        2,
        &["timeout.attempt"],
    ),
    variable(
        "a variable with single underscores",
        &[("BREAKERBOX_ADMIN_TOKEN", "hunter2-hunter2-hunter2")],
        0,
        &["did you mean breakerbox__admin__token?"],
    ),
    variable(
        "an unknown environment",
        &[("BREAKERBOX_ENV", "prodution")],
        2,
        &["prodution", "there is no file"],
    ),
    variable(
        "a word for a number in a variable",
        &[(
            "BREAKERBOX__DEPENDENCIES__WEATHER__RETRY__MAX_ATTEMPTS",
            "three",
        )],
        2,
        &["1 to 100", "max_attempts)"],
    ),
    variable(
        "a list of tables that is none",
        &[("BREAKERBOX__DEPENDENCIES__WEATHER__FALLBACK", "stale_cache")],
        2,
        &["as json"],
    ),
    // the command line
    line(
        "an option that is a key",
        &["serve", "--gateway.bind", "127.0.0.1:1"],
        &["breakerbox__gateway__bind"],
    ),
    line(
        "a port as an option",
        &["serve", "--port", "8080"],
        &["gateway.bind"],
    ),
    line(
        "a command of other tools",
        &["validate"],
        &["breakerbox check"],
    ),
    line("a command with a typo", &["chekc"], &["check"]),
    line(
        "a name with a typo",
        &["check", "wether"],
        &["did you mean weather?"],
    ),
    line(
        "a file as the folder",
        &["check", "--config", "config/default.toml"],
        &["it is a file", "the folder that it is in: config"],
    ),
    line(
        "a folder with a typo",
        &["check", "--config", "confg"],
        &["did you mean config?"],
    ),
    line(
        "a folder without the file",
        &["check", "--config", "."],
        &["default.toml", "there is no such file"],
    ),
    line(
        "an environment with a typo",
        &["check", "--env", "developmnt"],
        &["there is no file for the environment"],
    ),
];

/// Returns what the command says to a mistake, and the reason why that is not enough.
fn tried(mistake: &Mistake) -> Result<(), String> {
    let folder = folder_with(&[("config/default.toml", mistake.text)]);
    let (code, said) = match mistake.arguments {
        ["check"] => {
            let (code, out, err) = check(folder.path(), &[], mistake.variables);
            (code, out + &err)
        }
        arguments => command(folder.path(), arguments),
    };
    let low = said.to_lowercase();
    let missing: Vec<_> = mistake
        .words
        .iter()
        .filter(|word| !low.contains(**word))
        .collect();
    if code == mistake.code && missing.is_empty() && !said.contains("hunter2") {
        return Ok(());
    }
    let what = mistake.what;
    Err(format!(
        "{what}: exit {code}, missing {missing:?} in:\n{said}"
    ))
}

fn command(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    let code = output.status.code().expect("it ends by itself");
    (code, text(output.stdout) + &text(output.stderr))
}

#[test]
fn cfg_1_each_mistake_can_be_repaired_from_its_message_alone() {
    assert!(MISTAKES.len() >= 75, "{}", MISTAKES.len());
    all_are_told(MISTAKES);
}

/// Tries each mistake, and shows all that are not told well enough.
pub(super) fn all_are_told(mistakes: &[Mistake]) {
    let bad: Vec<String> = mistakes.iter().filter_map(|one| tried(one).err()).collect();
    let (bad_ones, all) = (bad.len(), mistakes.len());
    assert!(bad.is_empty(), "{bad_ones} of {all}\n{}", bad.join("\n"));
}
