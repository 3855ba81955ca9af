//! CFG-1: the settings around the breaker, their defaults, and combinations that are refused.

use std::time::Duration;

use breakerbox::config::{FallbackKind, Settings};
use breakerbox_policy::{
    AdaptiveRule, AdaptiveSettings, ChaosSettings, ClassifySettings, HedgeDelay, HedgeSettings,
    KeySettings, QuotaReset, Rate, RateLimitSettings, RetryJitter, Symptom, WhenAllDown,
};

use super::{EVERYTHING, dependency, nonzero, of_text};

fn rate(fraction: f64) -> Rate {
    Rate::new(fraction).expect("a fraction")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn cfg_1_every_limit_of_the_kernel_can_be_set() {
    let config = dependency(EVERYTHING);
    assert!(config.settings.fallback_only);
    let settings = config.settings;
    let hedge = HedgeSettings {
        delay: HedgeDelay::Quantile {
            quantile: rate(0.9),
            at_least: Duration::from_millis(20),
        },
        max_hedges: nonzero(2),
    };
    assert_eq!(settings.hedge, Some(hedge));
    let limit = RateLimitSettings {
        rate: 20.0,
        per: seconds(1),
        burst: nonzero(20),
        max_wait: Duration::ZERO,
    };
    assert_eq!(settings.rate_limit, Some(limit));
    assert_eq!(settings.throttle.backoff.jitter, RetryJitter::Decorrelated);
    assert_eq!(settings.throttle.backoff.max, seconds(60));
    assert_eq!(settings.throttle.max_wait, seconds(1));
    let reset = QuotaReset::Daily {
        hour: 23,
        minute: 59,
        zone: "America/Los_Angeles".to_owned(),
    };
    assert_eq!(settings.throttle.quota_reset, reset);
    let adaptive = AdaptiveSettings {
        rule: AdaptiveRule::Aimd { backoff: rate(0.5) },
        min: nonzero(2),
        initial: nonzero(3),
        idle: seconds(60),
    };
    assert_eq!(settings.bulkhead.adaptive, Some(adaptive));
    let keys = KeySettings {
        max_entries: nonzero(7),
        idle: seconds(60),
    };
    assert_eq!(settings.keys, keys);
    assert_eq!(settings.when_all_down, WhenAllDown::Try);
    let chaos = ChaosSettings {
        latency_rate: rate(0.5),
        latency: seconds(1),
        error_rate: rate(0.25),
        hang_rate: rate(0.5),
        panic_rate: rate(0.25),
        lasts: None,
    };
    assert_eq!(settings.chaos, Some(chaos));
    let on = settings.retry.on.expect("it was given");
    let symptoms = [
        Symptom::Timeout,
        Symptom::Crash,
        Symptom::StatusClass(5),
        Symptom::Status(429),
    ];
    assert_eq!(on.0, symptoms);
}

#[test]
fn cfg_1_short_forms_have_the_documented_defaults() {
    let hedge = dependency("hedge.delay = \"50ms\"").settings.hedge;
    let fixed = HedgeDelay::Fixed(Duration::from_millis(50));
    assert_eq!(
        hedge,
        Some(HedgeSettings {
            delay: fixed,
            max_hedges: nonzero(1)
        })
    );
    let learnt = dependency("hedge = { delay = {} }").settings.hedge.unwrap();
    let often = HedgeDelay::Quantile {
        quantile: rate(0.95),
        at_least: Duration::from_millis(20),
    };
    assert_eq!(learnt.delay, often);
    let adaptive = |text: &str| dependency(text).settings.bulkhead.adaptive;
    assert_eq!(
        adaptive("bulkhead.adaptive = {}"),
        Some(AdaptiveSettings::default())
    );
    assert_eq!(adaptive("bulkhead.adaptive = \"off\""), None);
    // The defaults adapt to the given values.
    let low = adaptive("bulkhead = { max_concurrent = 4, adaptive = {} }").unwrap();
    assert_eq!((low.min, low.initial), (nonzero(1), nonzero(4)));
    let high = adaptive("bulkhead.adaptive.min = 20").unwrap();
    assert_eq!((high.min, high.initial), (nonzero(20), nonzero(20)));
    let chaos = dependency("chaos = {}").settings.chaos;
    assert_eq!(chaos, Some(ChaosSettings::default()));
    let reset = |text: &str| dependency(text).settings.throttle.quota_reset;
    assert_eq!(
        reset("throttle.quota_reset = \"2h\""),
        QuotaReset::After(seconds(7200))
    );
    // Zone names are matched in any case, and stored as the database spells them.
    let daily = reset("throttle.quota_reset = { at = \"7:05\", zone = \"europe/berlin\" }");
    let QuotaReset::Daily { hour, minute, zone } = daily else {
        panic!("{daily:?}");
    };
    assert_eq!((hour, minute, zone.as_str()), (7, 5, "Europe/Berlin"));
    let classify = dependency("classify.failure = [503]").settings.classify;
    assert_eq!(classify.failure.0, [Symptom::Status(503)]);
    assert_eq!(classify.rejected, ClassifySettings::default().rejected);
    let cache = dependency("fallback = [{ kind = \"stale_cache\", refresh = true }]");
    let kind = &cache.fallbacks[0].kind;
    assert!(
        matches!(kind, FallbackKind::StaleCache { refresh: true, .. }),
        "{kind:?}"
    );
}

#[test]
fn cfg_1_limits_that_cannot_work_are_refused() {
    let cases = [
        ("hedge = {}", "hedge.delay"),
        ("hedge = { delay = \"5s\" }", "hedge.delay"),
        ("hedge = { delay = \"soon\" }", "hedge.delay"),
        (
            "hedge = { delay = { at_least = \"9s\" } }",
            "hedge.delay.at_least",
        ),
        (
            "hedge = { delay = { quantil = 0.5 } }",
            "hedge.delay.quantil",
        ),
        (
            "hedge = { delay = \"1s\", max_hedges = 6 }",
            "hedge.max_hedges",
        ),
        ("retry.on = []", "retry.on"),
        ("retry.on = [\"5xx\", \"often\"]", "retry.on"),
        ("retry.backoff.jitter = \"much\"", "retry.backoff.jitter"),
        (
            "throttle.quota_reset = { at = \"00:00\" }",
            "throttle.quota_reset.zone",
        ),
        (
            "throttle.quota_reset = { zone = \"UTC\" }",
            "throttle.quota_reset.at",
        ),
        (
            "throttle.quota_reset = { at = \"24:30\", zone = \"UTC\" }",
            "throttle.quota_reset.at",
        ),
        (
            "throttle.quota_reset = { at = \"00:00\", zone = \"Mars/Olympus\" }",
            "throttle.quota_reset.zone",
        ),
        (
            "throttle.backoff = { base = \"1h\", max = \"1m\" }",
            "throttle.backoff.base",
        ),
        ("bulkhead.adaptive.min = 33", "bulkhead.adaptive.min"),
        (
            "bulkhead.adaptive.initial = 33",
            "bulkhead.adaptive.initial",
        ),
        (
            "bulkhead.adaptive = { min = 5, initial = 4 }",
            "bulkhead.adaptive.min",
        ),
        (
            "bulkhead.adaptive.backoff = 0.5",
            "bulkhead.adaptive.backoff",
        ),
        (
            "bulkhead.adaptive = { rule = \"aimd\", tolerance = 2 }",
            "bulkhead.adaptive.tolerance",
        ),
        ("bulkhead.adaptive = 3", "bulkhead.adaptive"),
        ("keys.max_entries = 0", "keys.max_entries"),
        ("when_all_down = \"cry\"", "when_all_down"),
        (
            "chaos = { error_rate = 0.6, hang_rate = 0.3, panic_rate = 0.2 }",
            "chaos",
        ),
        ("chaos.latency_rate = 0.5", "chaos.latency_rate"),
        ("classify.failure = [\"crash\"]", "classify.failure"),
        (
            "fallback = [{ kind = \"stale_cache\", name = \"a\" }]",
            "fallback[0].name",
        ),
        (
            "fallback = [{ kind = \"fixed\", refresh = true }]",
            "fallback[0].refresh",
        ),
        (
            "kind = \"simulated\"\nfallback_only = true",
            "fallback_only",
        ),
    ];
    for (text, key) in cases {
        let text = format!("[dependencies.web]\n{text}");
        let error = of_text(&text).load().expect_err(&text);
        let keys: Vec<&str> = error
            .problems()
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert_eq!(keys, [format!("dependencies.web.{key}")], "{error}");
    }
}

#[test]
fn cfg_1_what_is_just_possible_is_taken() {
    for text in [
        "hedge = { delay = \"4999ms\" }",
        "hedge = { delay = \"1h\" }\ntimeout = { attempt = \"off\" }",
        "hedge = { delay = \"1s\", max_hedges = 5 }",
        "chaos = { error_rate = 0.1, hang_rate = 0.7, panic_rate = 0.2 }",
        "bulkhead.adaptive = { min = 32, initial = 32 }",
        "kind = \"simulated\"\nfallback_only = true\nfallback = [{ kind = \"stale_cache\" }]",
        "fallback_only = true",
    ] {
        dependency(text);
    }
}

#[test]
fn cfg_1_chaos_in_production_must_be_allowed_by_name() {
    let load = |environment: &str, chaos: &str| {
        let text = format!("[dependencies.web]\nchaos = {chaos}");
        let folder = super::folder_with(&[(&format!("{environment}.toml"), text.as_str())]);
        Settings::loader()
            .dir(folder.path())
            .environment(environment)
            .env_vars(super::NO_VARIABLES)
            .load()
    };
    let error = load("production", "{ error_rate = 0.1 }").expect_err("it is refused");
    let problem = &error.problems()[0];
    assert_eq!(problem.key, "dependencies.web.chaos");
    assert!(
        error
            .to_string()
            .contains("faults on purpose in production"),
        "{error}"
    );
    assert!(problem.origin.ends_with("production.toml:2"), "{error}");
    load("production", "\"off\"").unwrap();
    load("staging", "{ error_rate = 0.1 }").unwrap();
    let allowed = load(
        "production",
        "{ error_rate = 0.1, allow_in_production = true }",
    )
    .unwrap();
    assert!(allowed.dependencies["web"].settings.chaos.is_some());
}

#[test]
fn cfg_1_the_recorder_and_the_reload_are_set_for_the_process() {
    let text = "[recorder]\npath = \"trace.jsonl\"\nmax_queue = 5\nmax_bytes = \"1GB\"\n\
                [reload]\nwatch = false\ndebounce = 1";
    let settings = of_text(text)
        .load()
        .unwrap_or_else(|error| panic!("{error}"));
    let recorder = settings.recorder;
    assert_eq!(recorder.path.as_deref(), Some("trace.jsonl".as_ref()));
    assert_eq!(
        (recorder.max_queue, recorder.max_bytes),
        (nonzero(5), 1_000_000_000)
    );
    assert!(!settings.reload.watch);
    assert_eq!(settings.reload.debounce, seconds(1));
    let default = of_text("").load().unwrap();
    assert_eq!(default.recorder.path, None);
    assert_eq!(default.recorder.max_bytes, 64_000_000);
    for text in [
        "[recorder]\nmax_bytes = 999999",
        "[recorder]\nmax_bytes = \"2TB\"",
        "[recorder]\nmax_bytes = \"64 parsecs\"",
        "[recorder]\nmax_bytes = -1",
        "[recorder]\nmax_queue = 0",
        "[recorder]\npath = \"\"",
        "[reload]\ndebounce = \"1ms\"",
    ] {
        let error = of_text(text).load().expect_err(text);
        assert_eq!(error.problems().len(), 1, "{error}");
    }
}

#[test]
fn edge_2_e2a_settings_that_share_answers_are_warned_of() {
    let text = "[dependencies.a]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
                fallback = [{ kind = \"stale_cache\", headers = [\"x-a\", \"!authorization\"], \
                obey = false, max_bytes = \"10KB\" }]";
    let loaded = Settings::loader().bare().toml(text).load().unwrap();
    let FallbackKind::StaleCache {
        max_bytes, obey, ..
    } = loaded.dependencies["a"].fallbacks[0].kind
    else {
        panic!("no cache");
    };
    assert_eq!((max_bytes, obey), (10_000, false));
    let warned: Vec<String> = loaded
        .warnings()
        .iter()
        .map(|one| format!("{one:?}"))
        .collect();
    for (key, word) in [
        ("headers", "authorization"),
        ("obey", "Cache-Control"),
        ("max_bytes", "max_body"),
    ] {
        let is_told =
            |one: &String| one.contains(&format!("fallback[0].{key}")) && one.contains(word);
        assert!(warned.iter().any(is_told), "{key}: {warned:?}");
    }
    assert_eq!(warned.len(), 3, "{warned:?}");
}
