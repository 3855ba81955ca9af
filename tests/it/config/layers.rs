//! CFG-1: the later layer wins, and each effective value can be shown with its layer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use breakerbox::config::{EffectiveValue, Settings};
use breakerbox_policy::WindowKind;

use super::{EVERYTHING, NO_VARIABLES, folder, folder_with, nonzero, of_text};

#[test]
fn item_93_a_later_layer_wins_and_says_so() {
    let default = "[dependencies.web.breaker]\nfailure_threshold = 2\nminimum_calls = 2\nrecovery_timeout = 2\nslow_call = 2\nprobe_lease = 12\n";
    let staging = "[dependencies.web.breaker]\nfailure_threshold = 3\nminimum_calls = 3\nrecovery_timeout = 3\nslow_call = 3\n";
    let prefix = "BREAKERBOX__DEPENDENCIES__WEB__BREAKER__";
    let dotenv = format!(
        "BREAKERBOX_ENV=staging\n{prefix}MINIMUM_CALLS=4\n{prefix}RECOVERY_TIMEOUT=4\n{prefix}SLOW_CALL=4s\n"
    );
    let folder = folder_with(&[
        ("default.toml", default),
        ("staging.toml", staging),
        ("local.env", &dotenv),
    ]);
    let load = || {
        Settings::loader()
            .dir(folder.path())
            .dotenv(folder.path().join("local.env"))
            .env_vars([
                (format!("{prefix}RECOVERY_TIMEOUT"), "5"),
                (format!("{prefix}SLOW_CALL"), "5s"),
            ])
            .flag("dependencies.web.breaker.slow_call", "6s")
            .load()
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let settings = load();
    assert_eq!(settings.environment, "staging");
    let breaker = &settings.dependencies["web"].settings.breaker;
    assert_eq!(breaker.half_open.probe_lease, Duration::from_secs(12));
    assert_eq!(breaker.failure_threshold, Some(nonzero(3)));
    assert_eq!(breaker.minimum_calls, 4);
    assert_eq!(breaker.open.base, Duration::from_secs(5));
    assert_eq!(breaker.slow_call, Some(Duration::from_secs(6)));
    let origin = |key: &str| {
        let key = format!("dependencies.web.breaker.{key}");
        let value = settings
            .effective()
            .iter()
            .find(|value| value.key == key)
            .unwrap();
        value.origin.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(origin("probe_lease"), "default.toml:6");
    assert_eq!(origin("failure_threshold"), "staging.toml:2");
    assert_eq!(
        origin("minimum_calls"),
        format!("local.env: {prefix}MINIMUM_CALLS")
    );
    let variable = format!("environment variable {prefix}RECOVERY_TIMEOUT");
    assert_eq!(origin("recovery_timeout"), variable);
    assert_eq!(
        origin("slow_call"),
        "flag dependencies.web.breaker.slow_call"
    );
    assert_eq!(load(), settings);
}

#[test]
fn cfg_1_a_choice_hides_leftovers_of_weaker_layers() {
    let text = "[dependencies.web.breaker]\nwindow = { kind = \"count\", size = 100 }";
    let prefix = "BREAKERBOX__DEPENDENCIES__WEB__BREAKER__WINDOW";
    let load = |variables: &[(&str, &str)]| {
        let variables = variables
            .iter()
            .map(|(name, value)| (format!("{prefix}{name}"), *value));
        let settings = of_text(text).env_vars(variables).load();
        settings.map(|settings| settings.dependencies["web"].settings.breaker.window)
    };
    assert_eq!(
        load(&[("", "consecutive")]).unwrap(),
        WindowKind::Consecutive
    );
    let time = load(&[("__KIND", "tumbling"), ("__SPAN", "1m")]).unwrap();
    assert_eq!(
        time,
        WindowKind::Tumbling {
            span: Duration::from_secs(60)
        }
    );
    assert!(load(&[("__SPAN", "1m")]).is_err());
}

/// A displayed value, as it would be written in a variable.
fn as_variable(shown: &str) -> String {
    let plain = shown.trim_start_matches('[').trim_end_matches(']');
    plain.replace('"', "").replace(", ", ",")
}

#[test]
fn item_93_every_value_can_be_overridden_in_each_layer_and_says_so() {
    let file = of_text(&format!("[dependencies.web]\n{EVERYTHING}"));
    let of_file = file.load().unwrap_or_else(|error| panic!("{error}"));
    // Variables cannot hold an array of tables, and an unset key has no text.
    let settable = |one: &&EffectiveValue| !one.key.contains('[') && one.value != "(not set)";
    let values: Vec<&EffectiveValue> = of_file.effective().iter().filter(settable).collect();
    assert!(values.len() > 90, "{}", values.len());
    let variables: Vec<(String, String)> = values
        .iter()
        .map(|one| {
            let name = one.key.to_uppercase().replace('.', "__");
            (format!("BREAKERBOX__{name}"), as_variable(&one.value))
        })
        .collect();
    let lines = variables
        .iter()
        .map(|(name, value)| format!("{name}='{value}'\n"));
    let scratch = folder_with(&[("layer.env", &lines.collect::<String>())]);
    let dotenv = file.dotenv(scratch.path().join("layer.env"));

    let origins = |settings: &Settings| -> BTreeSet<String> {
        assert_eq!(settings.dependencies, of_file.dependencies);
        assert_eq!(settings.recorder, of_file.recorder);
        let known: BTreeSet<&String> = values.iter().map(|one| &one.key).collect();
        let all = settings.effective().iter();
        let ours = all.filter(|one| known.contains(&one.key));
        ours.map(|one| one.origin.split(": ").next().unwrap().to_owned())
            .map(|origin| origin.replace(|c: char| c.is_ascii_digit(), ""))
            .map(|origin| match origin.split_once(" BREAKERBOX") {
                Some((layer, _)) => layer.to_owned(),
                None => origin.rsplit('/').next().unwrap().to_owned(),
            })
            .collect()
    };
    let set = |layers: &[&str]| layers.iter().map(ToString::to_string).collect();
    let expected: BTreeSet<String> = set(&["built-in default", "the given text:"]);
    assert_eq!(origins(&of_file), expected);
    let of_dotenv = dotenv.load().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(origins(&of_dotenv), set(&["layer.env"]));
    let of_variables = dotenv.env_vars(variables).load();
    let of_variables = of_variables.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(origins(&of_variables), set(&["environment variable"]));
}

#[test]
fn item_93_every_key_has_an_effective_value() {
    let settings = of_text("[dependencies.vector_search]").load().unwrap();
    let shown: Vec<&str> = settings
        .effective()
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    // The key itself, or a section above it that is off or of another kind.
    let is_shown = |key: &str| {
        let above = key.match_indices('.').map(|(at, _)| &key[..at]);
        above.chain([key]).any(|key| shown.contains(&key))
    };
    let of_other_kinds = [
        "window.",
        "half_open_rule.",
        "cancelled.",
        "quota_reset.",
        "tools.",
    ];
    // Keys of MCP servers, and of other kinds.
    let of_servers = [
        "command",
        "args",
        "env",
        "cwd",
        "headers",
        "start_timeout",
        "hang_limit",
        "stderr_lines",
        "max_line",
        "question_timeout",
        "sessions",
        "max_sessions",
        "session_idle",
        "members",
        // Of HTTP dependencies.
        "forwarded",
        "http_version",
        // Of models and pools.
        "api",
        "breaker.probe_stream",
        "callers_retry",
        "choose",
        "key",
        "key_header",
        "keys_by",
        "max_replay_body",
        "model",
        "repeat",
        "timeout.first_token",
        "timeout.gap",
        "token_limit",
    ];
    let of_servers = of_servers.map(|key| format!("dependencies.vector_search.{key}"));
    let missing: Vec<String> = Settings::keys()
        .into_iter()
        .map(|key| key.replace('*', "vector_search"))
        .filter(|key| !key.contains("fallback[0]") && !is_shown(key))
        .filter(|key| !of_other_kinds.iter().any(|kind| key.contains(kind)))
        .filter(|key| !of_servers.contains(key) && !key.starts_with("consumers."))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    assert!(shown.is_sorted(), "{shown:?}");
    let token = settings
        .effective()
        .iter()
        .find(|one| one.key == "admin.token");
    assert!(token.is_some_and(|token| token.is_default && token.value == "(not set)"));
}

#[test]
fn cfg_1_a_stronger_layer_turns_on_and_off_what_a_weaker_one_has() {
    let text = "[dependencies.web]\nhedge = \"off\"\nrate_limit = { rate = 5 }\n\
                chaos = { error_rate = 1.0 }\nthrottle.quota_reset = \"2h\"";
    let prefix = "BREAKERBOX__DEPENDENCIES__WEB";
    let settings = of_text(text)
        .env_vars([
            (format!("{prefix}__HEDGE__DELAY__QUANTILE"), "0.5"),
            (format!("{prefix}__RATE_LIMIT"), "off"),
            (format!("{prefix}__CHAOS"), "off"),
            (format!("{prefix}__THROTTLE__QUOTA_RESET__AT"), "06:30"),
            (format!("{prefix}__THROTTLE__QUOTA_RESET__ZONE"), "UTC"),
        ])
        .load()
        .unwrap_or_else(|error| panic!("{error}"));
    let settings = &settings.dependencies["web"].settings;
    assert!(settings.hedge.is_some() && settings.rate_limit.is_none() && settings.chaos.is_none());
    let reset = breakerbox_policy::QuotaReset::Daily {
        hour: 6,
        minute: 30,
        zone: "UTC".to_owned(),
    };
    assert_eq!(settings.throttle.quota_reset, reset);
}

#[test]
fn item_97_each_environment_has_settings_of_its_own() {
    let load = |name: &str| {
        let loader = Settings::loader().dir(folder());
        let loader = loader.env_vars([("BREAKERBOX_ENV", name)]);
        loader
            .load()
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let names = ["development", "test", "production"];
    let all = names.map(load);
    for (name, settings) in names.iter().zip(&all) {
        assert_eq!(settings.environment, *name);
        let own = folder().join(format!("{name}.toml"));
        assert_eq!(settings.files(), [folder().join("default.toml"), own]);
    }
    let timeout = |settings: &Settings| {
        let open = &settings.dependencies["vector_search"].settings.breaker.open;
        (open.base, open.factor.to_bits())
    };
    let different: BTreeSet<_> = all.iter().map(timeout).collect();
    assert_eq!(different.len(), 3);
    assert!(!all[1].reload.watch && all[2].reload.watch);
}

#[test]
fn cfg_1_a_loader_says_where_it_would_read() {
    let scratch = folder_with(&[
        ("default.toml", ""),
        ("local.env", "BREAKERBOX_ENV=staging"),
    ]);
    let (dir, dotenv) = (scratch.path(), scratch.path().join("local.env"));
    let loader = Settings::loader().dir(dir).env_vars(NO_VARIABLES);
    let sources = loader.dotenv(&dotenv).sources();
    assert_eq!(sources.environment, "staging");
    let files = ["default.toml", "staging.toml", "local.env"].map(|name| dir.join(name));
    assert_eq!(sources.files, files);
    let found: Vec<PathBuf> = sources.found().map(PathBuf::from).collect();
    assert_eq!(found, [dir.join("default.toml"), dotenv]);
    let bare = Settings::loader().bare().sources();
    assert_eq!(
        (bare.environment.as_str(), bare.files.len()),
        ("development", 0)
    );
}
