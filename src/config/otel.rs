//! The section `otel`: export of traces and metrics, and the standard variables beneath it.
//!
//! This module does not know the exporter. Variables such as `OTEL_EXPORTER_OTLP_ENDPOINT` form a
//! layer directly above the built-in defaults; each is read as the corresponding key. A build
//! without the feature `otel` reads none of them, and accepts no endpoint.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::secret::Secret;
use super::section::Section;
use super::source::LayerRank;
use super::url::{URL, is_http_url};
use super::value_type::{TICK, boolean, count, duration, number, string};

/// Export of the sidecar's traces and metrics, by the OpenTelemetry protocol.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OtelConfig {
    /// The collector's address for OTLP over HTTP, without a path for one signal. `None` exports
    /// nothing.
    pub endpoint: Option<String>,
    /// Headers of each export, such as an API key of the collector; their values are secrets.
    pub headers: Vec<(String, Secret)>,
    /// Service name of this process.
    pub service_name: String,
    /// Share of traces that are sampled if the caller has not decided.
    ///
    /// # Units   [0, 1].
    pub sample_ratio: f64,
    /// True to export traces.
    pub traces: bool,
    /// True to export metrics.
    pub metrics: bool,
    /// Interval of metric exports.
    pub interval: Duration,
    /// Time limit for one export, and for the rest when the process ends.
    pub timeout: Duration,
    /// Maximum number of spans waiting for export; further ones are dropped and counted.
    pub max_queue: NonZeroU32,
}

impl Default for OtelConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            service_name: "breakerbox".to_owned(),
            sample_ratio: 1.0,
            traces: true,
            metrics: true,
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            max_queue: NonZeroU32::new(2048).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Reads `otel`.
pub(super) fn read(mut section: Section<'_>) -> OtelConfig {
    let default = OtelConfig::default();
    let endpoint = string(URL, is_http_url);
    let headers = string(
        "headers such as \"api-key=abc,tenant=7\", with %2C for a comma in a value",
        |text| parse_headers(text).is_some(),
    );
    let headers = headers.secret();
    let name = string("a text of 1 to 255 letters", |name| {
        !name.trim().is_empty() && name.len() <= 255
    });
    let often = duration(Duration::from_millis(100)..=Duration::from_secs(3600));
    let patience = duration(TICK..=Duration::from_secs(60));
    let settings = OtelConfig {
        endpoint: section.get_if_set("endpoint", &endpoint),
        headers: section
            .get_if_set("headers", &headers)
            .and_then(|text| parse_headers(&text))
            .unwrap_or_default(),
        service_name: section.get_or("service_name", &name, default.service_name),
        sample_ratio: section.get_or("sample_ratio", &number(0.0..=1.0), default.sample_ratio),
        traces: section.get_or("traces", &boolean(), default.traces),
        metrics: section.get_or("metrics", &boolean(), default.metrics),
        interval: section.get_or("interval", &often, default.interval),
        timeout: section.get_or("timeout", &patience, default.timeout),
        max_queue: section.get_or("max_queue", &count(1_000_000), default.max_queue),
    };
    if settings.endpoint.is_some() && !cfg!(feature = "otel") {
        let reason = "this program was built without the feature otel";
        section.conflict(
            "endpoint",
            reason,
            "to leave it out, or a build with --features otel",
        );
    }
    warn_of_no_endpoint(&section, &settings);
    warn_of_no_signal(&section, &settings);
    section.finish();
    settings
}

/// Warns of settings of a signal that is not exported.
fn warn_of_no_signal(section: &Section<'_>, settings: &OtelConfig) {
    if settings.endpoint.is_none() {
        return;
    }
    let default = OtelConfig::default();
    let is_sampled = (settings.sample_ratio - default.sample_ratio).abs() > f64::EPSILON;
    let is_longer = settings.max_queue != default.max_queue;
    for (key, is_set, signal, is_exported) in [
        ("sample_ratio", is_sampled, "traces", settings.traces),
        ("max_queue", is_longer, "traces", settings.traces),
        (
            "interval",
            settings.interval != default.interval,
            "metrics",
            settings.metrics,
        ),
    ] {
        if is_set && !is_exported && section.rank_of(key) > LayerRank::Standard {
            section.warn(key, format!("it has no effect: otel.{signal} is false"));
        }
    }
}

/// Warns of settings without an endpoint to send to. Standard variables are set for other programs
/// too.
fn warn_of_no_endpoint(section: &Section<'_>, settings: &OtelConfig) {
    if settings.endpoint.is_some() || section.is_bad("endpoint") {
        return;
    }
    let default = OtelConfig::default();
    let is_set = [
        ("headers", !settings.headers.is_empty()),
        (
            "service_name",
            settings.service_name != default.service_name,
        ),
        (
            "sample_ratio",
            (settings.sample_ratio - default.sample_ratio).abs() > f64::EPSILON,
        ),
        ("interval", settings.interval != default.interval),
        ("timeout", settings.timeout != default.timeout),
        ("max_queue", settings.max_queue != default.max_queue),
    ];
    for (key, is_set) in is_set {
        if is_set && section.rank_of(key) > LayerRank::Standard {
            let text = "it has no effect without otel.endpoint: nothing is exported";
            section.warn(key, text.to_owned());
        }
    }
}

/// Parses `name=value,name=value`, with `%XX` for special characters in a value.
fn parse_headers(text: &str) -> Option<Vec<(String, Secret)>> {
    let parts = text.split(',').map(str::trim);
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(parse_header).collect()
}

fn parse_header(part: &str) -> Option<(String, Secret)> {
    let (name, value) = part.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_token =
        |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    if name.is_empty() || !name.chars().all(is_token) {
        return None;
    }
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        };
        let is_visible = byte == b' ' || byte.is_ascii_graphic();
        plain.push(is_visible.then_some(char::from(byte))?);
    }
    Some((name.to_ascii_lowercase(), Secret::new(plain)))
}

/// Converts the standard variables. Returns the variable, the corresponding key, and the value in
/// the key's format. An empty variable counts as unset.
pub(super) fn standard(variables: &[(String, String)]) -> Vec<(String, &'static str, String)> {
    if !cfg!(feature = "otel") {
        return Vec::new();
    }
    let given: BTreeMap<&str, &str> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.trim()))
        .filter(|(name, value)| name.starts_with("OTEL_") && !value.is_empty())
        .collect();
    let mut all = Vec::new();
    let mut put = |name: &str, key: &'static str, value: String| {
        all.push((name.to_owned(), key, value));
    };
    let plain = |text: &str| text.to_owned();
    let described = given.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or(&"");
    let mut described = described.split(',').map(str::trim);
    if let Some(name) = described.find_map(|one| one.strip_prefix("service.name=")) {
        put("OTEL_RESOURCE_ATTRIBUTES", "service_name", plain(name));
    }
    for (name, key, as_key) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "endpoint",
            plain as fn(&str) -> String,
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "headers", plain),
        ("OTEL_SERVICE_NAME", "service_name", plain),
        ("OTEL_METRIC_EXPORT_INTERVAL", "interval", of_millis),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "timeout", of_millis),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "max_queue", plain),
        ("OTEL_TRACES_EXPORTER", "traces", of_exporter),
        ("OTEL_METRICS_EXPORTER", "metrics", of_exporter),
    ] {
        if let Some(value) = given.get(name) {
            put(name, key, as_key(value));
        }
    }
    if let Some(sampler) = given.get("OTEL_TRACES_SAMPLER") {
        match sampler.trim_start_matches("parentbased_") {
            "always_on" => put("OTEL_TRACES_SAMPLER", "sample_ratio", plain("1")),
            "always_off" => put("OTEL_TRACES_SAMPLER", "sample_ratio", plain("0")),
            "traceidratio" => {
                let ratio = given.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or(&"1");
                put("OTEL_TRACES_SAMPLER_ARG", "sample_ratio", plain(ratio));
            }
            // Other names are no ratio; they are reported like any invalid value.
            other => put("OTEL_TRACES_SAMPLER", "sample_ratio", plain(other)),
        }
    }
    // Only one protocol is supported: an endpoint for another one cannot be used.
    if let Some(protocol) = given.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        && *protocol != "http/protobuf"
        && given.contains_key("OTEL_EXPORTER_OTLP_ENDPOINT")
    {
        let value = format!("{protocol} is not supported, only http/protobuf is");
        put("OTEL_EXPORTER_OTLP_PROTOCOL", "endpoint", value);
    }
    if given
        .get("OTEL_SDK_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        put("OTEL_SDK_DISABLED", "traces", plain("false"));
        put("OTEL_SDK_DISABLED", "metrics", plain("false"));
    }
    all
}

/// Converts a number of milliseconds; an invalid value is shown as it is.
fn of_millis(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(millis) => format!("{millis}ms"),
        Err(_) => format!("{text:?} milliseconds"),
    }
}

/// Converts the name of an exporter: only `otlp` and `none` are supported.
fn of_exporter(text: &str) -> String {
    match text {
        "otlp" => "true",
        "none" => "false",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_standard_has_them() {
        let read = |text| {
            let all = parse_headers(text)?;
            let all = all
                .into_iter()
                .map(|(name, value)| format!("{name}: {}", value.expose()));
            Some(all.collect::<Vec<_>>())
        };
        let found = read(" API-Key = a=b , x= one%2Ctwo%20three ,");
        assert_eq!(found.unwrap(), ["api-key: a=b", "x: one,two three"]);
        assert_eq!(read("").unwrap(), Vec::<String>::new());
        for bad in [
            "key", "=1", "a b=1", "a=%2", "a=%zz", "a=%0A", "a=\u{7}", "a=%C3%A4",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
