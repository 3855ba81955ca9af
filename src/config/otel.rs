//! The section `otel`: where traces and metrics are sent, and the standard variables below it.
//!
//! It knows no exporter. Variables such as `OTEL_EXPORTER_OTLP_ENDPOINT` are a layer of their own,
//! the weakest but for the built-in defaults, and each of them is read under the key that it stands
//! for. A build without the feature `otel` reads none of them, and takes no endpoint.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::breaker::count;
use super::dependency::{URL, is_http_url};
use super::secret::Secret;
use super::section::Section;
use super::shape::{Shape, TICK, duration, line, number, truth};

/// Where the sidecar sends traces and metrics, by the OpenTelemetry protocol.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OtelConfig {
    /// The collector's address for OTLP over HTTP, without a path for one signal; `None` to send
    /// nothing.
    pub endpoint: Option<String>,
    /// Headers that each export carries, such as a key of the collector's; their values are secrets.
    pub headers: Vec<(String, Secret)>,
    /// What this process is called there.
    pub service_name: String,
    /// The share of traces that are kept where no caller has decided.
    ///
    /// # Units   [0, 1].
    pub sample_ratio: f64,
    /// Whether traces are sent.
    pub traces: bool,
    /// Whether metrics are sent.
    pub metrics: bool,
    /// How often metrics are sent.
    pub interval: Duration,
    /// How long one export may take, and all that is left when the process ends.
    pub timeout: Duration,
    /// Spans that wait to be sent; more are dropped and counted.
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
    let endpoint = line(URL, is_http_url);
    let headers = line(
        "headers such as \"api-key=abc,tenant=7\", with %2C for a comma in a value",
        |text| parse_headers(text).is_some(),
    );
    let headers = Shape {
        secret: true,
        ..headers
    };
    let name = line("a text of 1 to 255 letters", |name| {
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
        traces: section.get_or("traces", &truth(), default.traces),
        metrics: section.get_or("metrics", &truth(), default.metrics),
        interval: section.get_or("interval", &often, default.interval),
        timeout: section.get_or("timeout", &patience, default.timeout),
        max_queue: section.get_or("max_queue", &count(1_000_000), default.max_queue),
    };
    if settings.endpoint.is_some() && !cfg!(feature = "otel") {
        let reason = "this program was built without the feature otel, and cannot send there";
        section.conflict(
            "endpoint",
            reason,
            "to leave it out, or a build with --features otel",
        );
    }
    section.finish();
    settings
}

/// `name=value,name=value`, with `%XX` for letters of a value that would be read otherwise.
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

/// What the standard variables say: the variable, the key it stands for, and the value as the key
/// takes it. An empty one is as good as none.
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
            // Its name is no ratio, which is said as of any other value.
            other => put("OTEL_TRACES_SAMPLER", "sample_ratio", plain(other)),
        }
    }
    // There is one protocol here; an address that was meant for another is of no use.
    if let Some(protocol) = given.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        && *protocol != "http/protobuf"
        && given.contains_key("OTEL_EXPORTER_OTLP_ENDPOINT")
    {
        let value = format!("{protocol} is not http/protobuf");
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

/// These variables are numbers of milliseconds; what is none is shown as it is.
fn of_millis(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(millis) => format!("{millis}ms"),
        Err(_) => format!("{text:?} milliseconds"),
    }
}

/// Of the exporters that these variables can name, there is `otlp`.
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
