//! `[otel]`: validated like all sections; the standard variables rank below every file.

#[cfg(feature = "otel")]
use std::time::Duration;

use breakerbox::config::Settings;

use super::{of_text, problems};

#[test]
fn cfg_1_what_cannot_be_exported_is_told_at_once_and_no_secret_with_it() {
    let text = "[otel]\nendpoint = \"collector:4318\"\nheaders = \"api-key\"\nsample_ratio = 2\n\
                interval = \"1ms\"\ntimeout = \"2m\"\nmax_queue = 0\nservice_name = \" \"\n\
                header = \"hidden-word\"\ntraces = \"maybe\"\n";
    let found = problems(of_text(text));
    let keys: Vec<&str> = found
        .iter()
        .filter_map(|problem| problem.split(':').next())
        .collect();
    let expected = [
        "otel.endpoint",
        "otel.header",
        "otel.headers",
        "otel.interval",
        "otel.max_queue",
        "otel.sample_ratio",
        "otel.service_name",
        "otel.timeout",
        "otel.traces",
    ];
    assert_eq!(keys, expected);
    let all = found.concat();
    assert!(all.contains("headers: given ***"), "{all}");
    assert!(all.contains("did you mean headers?"), "{all}");
    assert!(!all.contains("hidden-word"), "{all}");
}

#[cfg(not(feature = "otel"))]
#[test]
fn cfg_1_a_build_without_the_exporter_says_so() {
    let found = problems(of_text("[otel]\nendpoint = \"http://127.0.0.1:4318\"\n"));
    let expected = "otel.endpoint: given \"http://127.0.0.1:4318\", this program was built without \
                    the feature otel, allowed: to leave it out, or a build \
                    with --features otel (the given text:2)";
    assert_eq!(found, [expected]);
    // Variables set for all programs of a machine do not affect this one.
    let around = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_TRACES_SAMPLER", "nonsense"),
    ];
    let settings = of_text("").env_vars(around).load().unwrap();
    assert_eq!(settings.otel, Settings::default().otel);
}

/// The displayed value and origin of a key.
#[cfg(feature = "otel")]
fn shown(settings: &Settings, key: &str) -> (String, String) {
    let mut all = settings.effective().iter();
    let one = all.find(|one| one.key == format!("otel.{key}"));
    let one = one.unwrap_or_else(|| panic!("{key} is not shown"));
    (one.value.clone(), one.origin.clone())
}

#[cfg(feature = "otel")]
#[test]
fn item_93_the_standard_variables_are_the_weakest_layer() {
    let around = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=swordfish%20two"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "2000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ("OTEL_RESOURCE_ATTRIBUTES", "region=x, service.name=one"),
        ("OTEL_SERVICE_NAME", "two"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("BREAKERBOX__OTEL__INTERVAL", "3s"),
    ];
    let text = "[otel]\ntimeout = \"4s\"\ninterval = \"5s\"\n";
    let settings = of_text(text).env_vars(around).load();
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let otel = &settings.otel;
    assert_eq!(otel.endpoint.as_deref(), Some("http://127.0.0.1:4318"));
    let [(name, value)] = &otel.headers[..] else {
        panic!("{otel:?}");
    };
    assert_eq!(
        (name.as_str(), value.expose()),
        ("api-key", "swordfish two")
    );
    assert_eq!(otel.timeout, Duration::from_secs(4));
    assert_eq!(otel.interval, Duration::from_secs(3));
    assert_eq!(otel.max_queue.get(), 16);
    assert_eq!(
        (otel.service_name.as_str(), otel.sample_ratio),
        ("two", 0.25)
    );
    assert!(otel.traces && !otel.metrics);
    let headers = shown(&settings, "headers");
    let origin = "environment variable OTEL_EXPORTER_OTLP_HEADERS";
    assert_eq!(headers, ("***".to_owned(), origin.to_owned()));
    assert_eq!(shown(&settings, "timeout").1, "the given text:2");
    let origin = "environment variable BREAKERBOX__OTEL__INTERVAL";
    assert_eq!(shown(&settings, "interval").1, origin);
    assert!(!format!("{settings:?}").contains("swordfish"));
    for (sampler, ratio) in [
        ("always_on", 1.0),
        ("parentbased_always_off", 0.0),
        ("traceidratio", 1.0),
        ("", 1.0),
    ] {
        let settings = of_text("").env_vars([("OTEL_TRACES_SAMPLER", sampler)]);
        assert_eq!(
            settings.load().unwrap().otel.sample_ratio,
            ratio,
            "{sampler}"
        );
    }
    let off = of_text("").env_vars([("OTEL_SDK_DISABLED", "TRUE")]);
    let off = off.load().unwrap().otel;
    assert!(!off.traces && !off.metrics);
}

#[cfg(feature = "otel")]
#[test]
fn cfg_1_a_standard_variable_that_cannot_be_used_is_named() {
    let around = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hidden-word"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_EXPORTER", "console"),
    ];
    let found = problems(of_text("").env_vars(around));
    let of = |name: &str| {
        let place = format!("(environment variable {name})");
        found.iter().any(|problem| problem.ends_with(&place))
    };
    for (name, _) in &around[1..] {
        assert!(of(name), "{name}: {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
    let all = found.concat();
    assert!(
        all.contains("grpc is not supported, only http/protobuf is"),
        "{all}"
    );
    assert!(!all.contains("hidden-word"), "{all}");
    // A bad variable does no harm if a stronger layer sets the key.
    let better = "[otel]\nendpoint = \"http://127.0.0.1:4318\"\nheaders = \"\"\ntraces = true\n\
                  interval = \"1m\"\nsample_ratio = 1\n";
    assert_eq!(problems_or_none(better, &around), Vec::<String>::new());
}

#[cfg(feature = "otel")]
fn problems_or_none(text: &str, around: &[(&str, &str)]) -> Vec<String> {
    let loaded = of_text(text).env_vars(around.iter().copied()).load();
    let error = loaded.err();
    let problems = error.iter().flat_map(|error| error.problems());
    problems.map(ToString::to_string).collect()
}
