//! CFG-1: layers, defaults, and all problems at once.

mod callers;
#[cfg(feature = "cli")]
mod check;
#[cfg(feature = "cli")]
mod closed;
mod credentials;
mod front;
#[cfg(feature = "cli")]
mod init;
mod layers;
mod limits;
mod mcp;
#[cfg(feature = "cli")]
mod mistakes;
mod models;
#[cfg(feature = "cli")]
mod newcomers;
#[cfg(feature = "cli")]
mod odd;
#[cfg(feature = "cli")]
mod operation;
mod otel;
mod problems;
#[cfg(feature = "cli")]
mod reload;
mod schema;
#[cfg(feature = "cli")]
mod silent;
mod table_lists;

use std::path::{Path, PathBuf};
use std::time::Duration;

use breakerbox::config::{DependencyConfig, DependencyKind, FallbackKind, Loader, Settings};
use breakerbox_policy::{
    CancelledPolicy, DependencySettings, GiveUp, HalfOpenRule, LostProbe, Placement, Rate,
    RestartType, RetryJitter, WhileRestarting, WindowKind,
};

const NO_VARIABLES: [(&str, &str); 0] = [];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn of_text(text: &str) -> Loader {
    let empty = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    Settings::loader()
        .dir(empty)
        .env_vars(NO_VARIABLES)
        .toml(text)
}

fn dependency(text: &str) -> DependencyConfig {
    let text = format!("[dependencies.web]\n{text}");
    let settings = of_text(&text)
        .load()
        .unwrap_or_else(|error| panic!("{error}"));
    settings.dependencies["web"].clone()
}

/// The lines of an error, without the first.
fn problems(loader: Loader) -> Vec<String> {
    let error = loader.load().expect_err("it has a problem");
    error.problems().iter().map(ToString::to_string).collect()
}

fn nonzero(number: u32) -> std::num::NonZeroU32 {
    number.try_into().expect("not zero")
}

#[test]
fn cfg_1_every_file_in_the_folder_is_an_environment_that_loads() {
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
    let mut names: Vec<String> = files
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["default", "demo", "development", "production", "test"]
    );
    for name in names {
        let loader = Settings::loader().dir(folder()).environment(&name);
        let settings = loader.env_vars(NO_VARIABLES).load();
        let settings = settings.unwrap_or_else(|error| panic!("{name}: {error}"));
        let names: Vec<&String> = settings.dependencies.keys().collect();
        assert_eq!(names, ["knowledge_graph", "vector_search", "web_search"]);
    }
}

#[test]
fn cfg_1_the_default_file_says_what_is_built_in() {
    let loader = Settings::loader().dir(folder()).environment("default");
    let settings = loader.env_vars(NO_VARIABLES).load().unwrap();
    let default = Settings::default();
    assert_eq!(settings.gateway, default.gateway);
    assert_eq!(settings.admin, default.admin);
    let search = &settings.dependencies["vector_search"];
    assert_eq!(search.kind, Some(DependencyKind::Simulated));
    assert_eq!(search.settings, DependencySettings::default());
    assert_eq!(settings.recorder, default.recorder);
    assert_eq!(settings.reload, default.reload);
    assert_eq!(settings.otel, default.otel);
    assert!(!search.settings.fallback_only);
}

#[test]
fn cfg_1_the_default_file_names_every_key() {
    let text = std::fs::read_to_string(folder().join("default.toml")).unwrap();
    let missing: Vec<String> = Settings::keys()
        .into_iter()
        .map(|key| key.replace("consumers.*", "consumers.search_jobs"))
        .filter(|key| !is_named(&text, &key.replace('*', "vector_search").replace("[0]", "")))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    assert!(Settings::keys().len() > 60);
}

/// Returns true if a section of the file has the key: plain, in an inline table, or in a comment.
fn is_named(text: &str, key: &str) -> bool {
    let mut section = String::new();
    text.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        if line.starts_with('[') {
            let name = line.trim_start_matches('[').split(']').next();
            section = name.unwrap_or("").to_owned();
        }
        let Some(rest) = key.strip_prefix(&format!("{section}.")) else {
            return false;
        };
        // A plain string may replace a table with only a kind.
        let rest = rest.trim_end_matches(".kind");
        let last = format!("{} =", rest.split('.').next_back().unwrap_or(rest));
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        line.match_indices(&last)
            .any(|(at, _)| !line[..at].ends_with(is_word))
    })
}

#[test]
fn item_02_nothing_configured_gives_the_documented_defaults() {
    let breaker = dependency("").settings.breaker;
    assert_eq!(breaker.window, WindowKind::Consecutive);
    assert_eq!(breaker.failure_threshold, Some(nonzero(5)));
    assert_eq!(breaker.open.base, Duration::from_secs(30));
    assert_eq!(breaker.half_open.rule, HalfOpenRule::Successes(nonzero(1)));
    assert_eq!(breaker.half_open.max_calls, nonzero(1));
}

#[test]
fn cfg_1_a_default_gives_way_to_what_was_given() {
    let open = dependency("breaker.recovery_timeout = \"1h\"")
        .settings
        .breaker
        .open;
    assert_eq!(open.max, Duration::from_secs(3600));
    let timeout = dependency("timeout.total = 2").settings.timeout;
    assert_eq!(timeout.attempt, Some(Duration::from_secs(2)));
    let settings = dependency("timeout.attempt = \"40s\"").settings;
    assert_eq!(settings.timeout.total, Some(Duration::from_secs(40)));
    assert_eq!(
        settings.breaker.half_open.probe_lease,
        Duration::from_secs(40)
    );
    let unlimited = dependency("timeout = { attempt = \"off\", total = \"off\" }")
        .settings
        .timeout;
    assert_eq!((unlimited.attempt, unlimited.total), (None, None));
}

#[test]
fn brk_5_a_probe_may_be_silent_for_as_long_as_a_call() {
    let http = "kind = \"http\"\nurl = \"http://127.0.0.1:9\"\n";
    for (kind, text, seconds) in [
        (http, "", 60),
        (http, "timeout.first_byte = \"2m\"", 120),
        (http, "timeout.attempt = \"5m\"", 300),
        (http, "timeout.total = \"5m\"", 300),
        (http, "timeout.attempt = \"2s\"", 10),
        ("", "timeout.attempt = \"off\"", 15),
        ("", "", 10),
    ] {
        let breaker = dependency(&format!("{kind}{text}")).settings.breaker;
        let lease = breaker.half_open.probe_lease;
        assert_eq!(lease, Duration::from_secs(seconds), "{kind}{text}");
    }
}

#[test]
fn edge_4_a_limit_of_the_whole_call_holds_for_its_head() {
    for (text, seconds) in [
        ("", 60),
        ("timeout.attempt = \"5m\"", 300),
        ("timeout.total = \"5m\"", 300),
        ("timeout = { attempt = \"2m\", total = \"5m\" }", 120),
        ("timeout = { attempt = \"5m\", first_byte = \"9s\" }", 9),
    ] {
        let text = format!("kind = \"http\"\nurl = \"http://127.0.0.1:9\"\n{text}");
        let head = dependency(&text).settings.timeout.first_byte;
        assert_eq!(head, Some(Duration::from_secs(seconds)), "{text}");
    }
}

#[test]
fn sec_1_the_token_is_never_shown() {
    let token = "a-long-and-secret-token";
    let settings = of_text(&format!("[admin]\ntoken = \"{token}\""))
        .load()
        .unwrap();
    assert_eq!(settings.admin.token.as_ref().unwrap().expose(), token);
    assert!(!format!("{settings:?}").contains(token));
    let misspelt = of_text(&format!("[admin]\ntokn = \"{token}\""))
        .load()
        .unwrap_err();
    assert!(!format!("{misspelt} {misspelt:?}").contains(token));
    let url = "[dependencies.web]\nkind = \"http\"\nurl = \"http://me:hunter2@host?key=hunter2\"";
    let error = of_text(url).load().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn cfg_1_every_setting_of_the_kernel_can_be_set() {
    let config = dependency(EVERYTHING);
    let settings = config.settings;
    let breaker = settings.breaker;
    let buckets = nonzero(6);
    assert_eq!(
        breaker.window,
        WindowKind::Time {
            span: Duration::from_secs(60),
            buckets
        }
    );
    assert_eq!(breaker.failure_threshold, None);
    assert_eq!(breaker.consecutive_failures, Some(nonzero(7)));
    assert_eq!(breaker.slow_rate, Rate::new(0.25).ok());
    assert_eq!(breaker.open.factor, 3.0);
    assert_eq!(breaker.open.jitter, 0.5);
    let rule = HalfOpenRule::KOfN {
        needed: nonzero(2),
        of: nonzero(3),
    };
    assert_eq!(breaker.half_open.rule, rule);
    assert_eq!(breaker.half_open.max_admitted, Some(nonzero(9)));
    assert!(breaker.half_open.limit.is_some_and(|limit| limit.closes));
    assert_eq!(breaker.half_open.lost_probe, LostProbe::FreesItsSlot);
    assert!(breaker.half_open.cancelled_probe_reopens);
    assert_eq!(
        breaker.cancelled,
        CancelledPolicy::Rate(Rate::new(0.5).unwrap())
    );
    assert_eq!(settings.retry.backoff.jitter, RetryJitter::Equal);
    assert!(settings.retry.budget.is_none() && settings.retry.on_open);
    assert_eq!(settings.bulkhead.max_queue, 0);
    let workers = settings.workers;
    assert_eq!(workers.placement, Placement::Dedicated);
    assert_eq!(workers.restart, RestartType::Transient);
    assert_eq!(workers.intensity.max, 0);
    assert_eq!(workers.give_up, GiveUp::Escalate);
    assert_eq!(workers.while_restarting, WhileRestarting::Reject);
    assert_eq!(workers.stuck_after, Some(Duration::from_secs(2)));
    assert_eq!(workers.quarantine, None);
    assert_eq!(settings.bulkhead.max_concurrent_writes, Some(nonzero(1)));
    assert_eq!(settings.rate_limit.unwrap().burst, nonzero(20));
    let FallbackKind::Fixed { status, .. } = config.fallbacks[0].kind else {
        panic!("a fixed answer");
    };
    assert_eq!(status, 204);
}

const EVERYTHING: &str = r#"
kind = "http"
url = "https://[::1]:9001/base"
idempotent = ["GET"]
rate_limit = { rate = 20, per = "1s" }
hedge = { delay = { quantile = 0.9 }, max_hedges = 2 }
keys = { max_entries = 7, idle = "1m" }
classify = { misconfigured = [401, 403] }
when_all_down = "try"
fallback_only = true
chaos = { latency_rate = 0.5, latency = "1s", error_rate = 0.25, hang_rate = 0.5, panic_rate = 0.25, lasts = "off" }
[dependencies.web.throttle]
backoff = { jitter = "decorrelated" }
max_wait = "1s"
quota_reset = { at = "23:59", zone = "America/Los_Angeles" }
[dependencies.web.breaker]
window = { kind = "time", span = "1m", buckets = 6 }
failure_threshold = "off"
consecutive_failures = 7
slow_rate = 0.25
slow_call = 0.5
recovery_backoff = { factor = 3, jitter = 0.5 }
half_open_attempt_limit = 2
half_open_rule = { kind = "k_of_n", of = 3 }
half_open_max_admitted = 9
half_open_limit = { after = "1m", then = "closes" }
lost_probe = "frees_its_slot"
cancelled = { kind = "rate", rate = 0.5 }
cancelled_probe_reopens = true
[dependencies.web.retry]
backoff = { jitter = "equal" }
budget = "off"
on = ["timeout", "crash", "5xx", 429]
on_open = true
[dependencies.web.bulkhead]
max_queue = 0
max_concurrent_writes = 1
adaptive = { rule = "aimd", backoff = 0.5, min = 2, initial = 3, idle = "1m" }
[dependencies.web.workers]
placement = "dedicated"
restart = "transient"
intensity = { max = 0 }
give_up = "escalate"
while_restarting = "reject"
stuck_after = "2s"
quarantine = "off"
[[dependencies.web.fallback]]
kind = "fixed"
status = 204
"#;

/// A folder with these files; it is removed with the test.
fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file for the test");
        // Some have secrets, which would be warned of if others could read them.
        credentials::set_mode(&path, 0o600);
    }
    folder
}
