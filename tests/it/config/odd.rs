//! Settings that contradict each other, have no effect, or open a door: each is told, and none refused.

use super::mistakes::{Mistake, all_are_told, file, variable, warned, with};

/// A model with more lines.
macro_rules! model {
    ($more:literal) => {
        concat!(
            "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\n",
            $more,
            "\n"
        )
    };
}

const EFFECTS: &[Mistake] = &[
    warned(
        "a call slower than an attempt",
        with!(
            "timeout.attempt = \"3s\"\nbreaker = { slow_call = \"5s\", slow_rate = 0.5, minimum_calls = 5, window = { kind = \"count\", size = 10 } }"
        ),
        &["breaker.slow_call", "timeout.attempt ends each after 3s"],
    ),
    warned(
        "retries on open without retries",
        with!("retry = { max_attempts = 1, on_open = true }"),
        &["retry.on_open: it has no effect"],
    ),
    warned(
        "a budget of nothing",
        with!("retry = { max_attempts = 3, budget = { ratio = 0.0, floor_per_second = 0 } }"),
        &["retry.budget.ratio", "allows no retry"],
    ),
    warned(
        "a wait that the total ends",
        with!("timeout.total = \"5s\"\nthrottle.max_wait = \"30s\""),
        &[
            "throttle.max_wait",
            "timeout.total ends the call before, after 5s",
        ],
    ),
    warned(
        "a wait for a rate that the total ends",
        with!("timeout.total = \"5s\"\nrate_limit = { rate = 1, max_wait = \"30s\" }"),
        &["rate_limit.max_wait", "after 5s"],
    ),
    warned(
        "a first retry that the total ends",
        with!(
            "timeout.total = \"5s\"\nretry = { max_attempts = 5, backoff = { base = \"10s\", jitter = \"none\" } }"
        ),
        &["retry.backoff.base", "after 5s"],
    ),
    warned(
        "a share of errors that is never reached",
        with!("health.degraded_at = 0.8"),
        &["health.degraded_at", "never degraded"],
    ),
    warned(
        "milliseconds of a hedge",
        with!("timeout.attempt = \"off\"\nhedge = { delay = 5000 }"),
        &["hedge.delay", "without a unit", "\"5000ms\""],
    ),
    warned(
        "milliseconds of a window",
        with!("breaker = { window = { kind = \"time\", span = 10000 } }"),
        &["window.span", "without a unit", "\"10000ms\""],
    ),
    warned(
        "bodies kept above those that are taken",
        concat!(
            "[gateway]\nmax_body = \"1MB\"\nmax_replay_body = \"2MB\"\n",
            with!("")
        ),
        &["gateway.max_replay_body", "gateway.max_body"],
    ),
    warned(
        "faults as mistakes of callers",
        with!("classify = { rejected = [\"4xx\", \"5xx\"], failure = [\"connect\"] }"),
        &["classify.rejected", "the breaker"],
    ),
    warned(
        "a period of probes shorter than a probe",
        with!(
            "timeout.attempt = \"30s\"\nbreaker = { probe_lease = \"30s\", half_open_limit = { after = \"1s\" } }"
        ),
        &["half_open_limit.after", "ends before a probe can"],
    ),
    warned(
        "retries of an answer that is never retried",
        with!("retry = { max_attempts = 3, on = [404] }"),
        &["retry.on", "never retried"],
    ),
    warned(
        "an open gateway on an address of the network",
        concat!(
            "[gateway]\nbind = \"192.168.1.5:7070\"\n",
            with!("headers = { authorization = \"Bearer abcdefghijklmnop\" }")
        ),
        &["gateway.bind", "a key of ours"],
    ),
    warned(
        "an open gateway before a process with a secret",
        "[gateway]\nbind = \"0.0.0.0:7070\"\n[dependencies.m]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\nenv = { GITHUB_TOKEN = \"ghp_abcdefghijklmnop\" }\n",
        &["gateway.bind", "a key of ours"],
    ),
    warned(
        "a lease shorter than a probe",
        with!("breaker = { probe_lease = \"10s\" }"),
        &["breaker.probe_lease", "timeout.first_byte is 1m"],
    ),
    warned(
        "two caches",
        with!("fallback = [{ kind = \"stale_cache\" }, { kind = \"stale_cache\" }]"),
        &["fallback[1].kind", "same answers"],
    ),
    warned(
        "broken JSON",
        with!("fallback = [{ kind = \"fixed\", body = \"{\\\"a\\\": }\" }]"),
        &["fallback[0].body", "it is no json"],
    ),
    warned(
        "a fallback at the same address",
        with!(
            "fallback = [{ kind = \"dependency\", name = \"other\", writes = false }]\n[dependencies.other]\nkind = \"http\"\nurl = \"http://127.0.0.1:19101\""
        ),
        &["fallback[0].name", "same url as weather"],
    ),
    warned(
        "the path of a model's request",
        model!("url = \"https://api.example.com/v1/chat/completions\""),
        &["did you mean \"https://api.example.com/v1\"?"],
    ),
    warned(
        "a model's key with its scheme",
        model!("url = \"https://api.example.com\"\nkey = \"Bearer sk-abcdefabcdefabc\""),
        &["dependencies.gpt.key", "the key alone"],
    ),
    warned(
        "a placeholder",
        model!("url = \"https://api.example.com\"\nkey = \"YOUR_API_KEY\""),
        &["dependencies.gpt.key", "placeholder"],
    ),
    warned(
        "a key beside a header",
        model!(
            "url = \"https://api.example.com\"\nkey = \"sk-abcdefabcdefabc\"\nheaders = { authorization = \"Bearer x\" }"
        ),
        &["headers.authorization is set too"],
    ),
    warned(
        "a gap longer than the call",
        model!(
            "url = \"https://api.example.com\"\ntimeout = { total = \"30s\", gap = \"40s\", first_token = \"20s\", attempt = \"30s\" }"
        ),
        &["timeout.gap", "after 30s"],
    ),
    warned(
        "a variable in a header",
        with!("headers = { x-api-key = \"${API_KEY}\" }"),
        &["headers.x-api-key", "used literally"],
    ),
    warned(
        "a token in quotes",
        "[admin]\ntoken = \"'a-token-of-many-letters'\"\n[dependencies.weather]\nkind = \"http\"\nurl = \"http://a\"\n",
        &["admin.token", "the quotes are a part of it"],
    ),
    warned(
        "arguments in one text",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"npx\"\nargs = \"-y a-server\"\n",
        &["tools.args", "give a list"],
    ),
    warned(
        "a folder that is missing",
        "[dependencies.tools]\nkind = \"mcp_stdio\"\ncommand = \"npx\"\ncwd = \"no-folder\"\n",
        &["tools.cwd", "no such folder", "/no-folder"],
    ),
    warned(
        "an export to nowhere",
        concat!("[otel]\nsample_ratio = 0.5\n", with!("")),
        &["otel.sample_ratio", "otel.endpoint"],
    ),
    warned(
        "a size of no recording",
        concat!("[recorder]\nmax_bytes = \"2MB\"\n", with!("")),
        &["recorder.max_bytes", "recorder.path"],
    ),
    variable(
        "an underscore too many",
        &[("BREAKER_BOX__ADMIN__TOKEN", "a-token-of-many-letters")],
        0,
        &["did you mean breakerbox__admin__token?"],
    ),
];

#[test]
fn edge_7_settings_without_effect_are_told() {
    all_are_told(EFFECTS);
}

const DOORS: &[Mistake] = &[
    warned(
        "a key for everyone",
        concat!(
            "[gateway]\nbind = \"0.0.0.0:19107\"\n",
            model!("url = \"https://api.example.com\"\nkey = \"sk-abcdefabcdefabc\"")
        ),
        &["gateway.bind", "gateway.auth"],
    ),
    warned(
        "a key without TLS",
        model!("url = \"http://models.example.com\"\nkey = \"sk-abcdefabcdefabc\""),
        &["dependencies.gpt.url", "https://"],
    ),
    warned(
        "one token for all",
        concat!(
            "[gateway.auth]\ntokens = [\"a-token-of-many-letters\"]\n[admin]\ntoken = \"a-token-of-many-letters\"\n",
            with!("")
        ),
        &["admin.token", "operators one of their own"],
    ),
    warned(
        "an address that leads back",
        "[dependencies.weather]\nkind = \"http\"\nurl = \"http://localhost:7070/weather\"\n",
        &["weather.url", "it is the gateway of this breakerbox"],
    ),
    file(
        "addresses of which one covers the other",
        concat!(
            "[gateway]\nbind = \"0.0.0.0:19108\"\n[admin]\nbind = \"127.0.0.1:19108\"\n",
            with!("")
        ),
        &["admin.bind", "the gateway listens there already"],
    ),
    file(
        "one file for two",
        concat!(
            "[gateway]\naccess_log = \"one.log\"\n[recorder]\npath = \"./one.log\"\n",
            with!("")
        ),
        &["recorder.path", "gateway.access_log names the same file"],
    ),
    file(
        "a token of two lines",
        concat!(
            "[admin]\ntoken = \"a-token-of-many\\nletters\"\n",
            with!("")
        ),
        &["admin.token", "control character"],
    ),
    variable(
        "a level with a typo",
        &[("RUST_LOG", "inof")],
        0,
        &["rust_log", "did you mean info?"],
    ),
];

#[test]
fn edge_7_settings_that_open_a_door_are_told() {
    all_are_told(DOORS);
}

#[test]
fn sec_1_blanks_around_tokens_are_left_out() {
    let text = "[gateway.auth]\ntokens = [\"a-token-of-many-letters\\n\"]\n[admin]\n\
                token = \" another-token-of-letters\\n\"\n[dependencies.gpt]\nkind = \"model\"\n\
                api = \"openai\"\nurl = \"https://api.example.com\"\nkey = \"sk-abc\\n\"\n\
                headers = { x-own = \"one\\n\" }\n";
    let settings = super::of_text(text).load().unwrap();
    let auth = settings.gateway.auth.unwrap();
    assert_eq!(auth.tokens[0].expose(), "a-token-of-many-letters");
    let token = settings.admin.token.unwrap();
    assert_eq!(token.expose(), "another-token-of-letters");
    let gpt = &settings.dependencies["gpt"];
    let key = gpt.model.as_ref().unwrap().key.as_ref().unwrap();
    assert_eq!(key.expose(), "sk-abc");
    assert_eq!(gpt.outbound.headers["x-own"].expose(), "one");
}

#[cfg(unix)]
#[test]
fn edge_7_a_secret_that_others_can_read_is_told_once_for_a_file() {
    let text = "[admin]\ntoken = \"a-token-of-many-letters\"\n[dependencies.weather]\n\
                kind = \"http\"\nurl = \"http://127.0.0.1:19101\"\n\
                headers = { x-api-key = \"abcdef\", accept = \"text/plain\" }\n";
    let folder = super::folder_with(&[("config/default.toml", text)]);
    let path = folder.path().join("config/default.toml");
    super::credentials::set_mode(&path, 0o644);
    let (code, _, err) = super::check::check(folder.path(), &[], &[]);
    assert_eq!((code, err.lines().count()), (0, 1), "{err}");
    let said = "warning: admin.token: others than the owner of the file can read this secret";
    assert!(err.contains(said) && err.contains("mode is 644"), "{err}");
    super::credentials::set_mode(&path, 0o600);
    let (code, _, err) = super::check::check(folder.path(), &[], &[]);
    assert_eq!((code, &*err), (0, ""));
}

#[cfg(unix)]
#[test]
fn edge_7_check_refuses_a_folder_that_may_not_be_written() {
    use std::os::unix::process::CommandExt as _;
    for (key, text) in [
        (
            "gateway.access_log",
            "[gateway]\naccess_log = \"closed/a.log\"\n",
        ),
        ("recorder.path", "[recorder]\npath = \"closed/a.trace\"\n"),
        (
            "admin.state",
            "[admin]\nstate = \"closed/a.json\"\ntoken = \"a-token-of-many-letters\"\n",
        ),
    ] {
        let text = format!("{text}{}", with!(""));
        let folder = super::folder_with(&[("config/default.toml", &text), ("closed/x", "")]);
        super::credentials::set_mode(folder.path(), 0o755);
        super::credentials::set_mode(&folder.path().join("config"), 0o755);
        super::credentials::set_mode(&folder.path().join("config/default.toml"), 0o644);
        super::credentials::set_mode(&folder.path().join("closed"), 0o555);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        command
            .arg("check")
            .current_dir(folder.path())
            .env_remove("RUST_LOG");
        if nix::unistd::geteuid().is_root() {
            // The superuser may write anywhere.
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        super::credentials::set_mode(&folder.path().join("closed"), 0o755);
        assert_eq!(output.status.code(), Some(2), "{err}");
        let told = err.contains(key) && err.contains("may create no file in its folder");
        assert!(told, "{key}: {err}");
    }
}
