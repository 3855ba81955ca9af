//! Traces and metrics as a collector receives them. The sidecar is real; the test's receiver
//! decodes the protocol with OpenTelemetry's own messages.

mod lost;
mod models;
mod tools;

use std::sync::Mutex;

use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Everything that the collector has received.
#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    reports: Vec<ExportMetricsServiceRequest>,
    services: Vec<String>,
    keys: Vec<String>,
    bytes: Vec<u8>,
}

/// A collector on loopback; it ends with the test.
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Got>>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let got = Arc::new(Mutex::new(Got::default()));
        let (traces, metrics) = (Arc::clone(&got), Arc::clone(&got));
        let note = |got: &mut Got, headers: &HeaderMap, body: &[u8]| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let key = headers.get("api-key").map(|key| key.to_str().unwrap());
            got.keys.push(key.unwrap_or_default().to_owned());
            got.bytes.extend_from_slice(body);
        };
        let app = Router::new()
            .route(
                "/v1/traces",
                post(async move |headers: HeaderMap, body: axum::body::Bytes| {
                    let message = ExportTraceServiceRequest::decode(body.clone()).unwrap();
                    let mut got = traces.lock().unwrap();
                    note(&mut got, &headers, &body);
                    for resource in message.resource_spans {
                        let described = resource.resource.unwrap();
                        got.services
                            .push(word(&described.attributes, "service.name"));
                        let scopes = resource.scope_spans.into_iter();
                        got.spans.extend(scopes.flat_map(|scope| scope.spans));
                    }
                }),
            )
            .route(
                "/v1/metrics",
                post(async move |headers: HeaderMap, body: axum::body::Bytes| {
                    let message = ExportMetricsServiceRequest::decode(body.clone()).unwrap();
                    let mut got = metrics.lock().unwrap();
                    note(&mut got, &headers, &body);
                    got.reports.push(message);
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            got,
            server,
        }
    }

    /// Waits until the received data meet a condition.
    async fn until(&self, what: &str, is_so: impl Fn(&Got) -> bool) {
        let look = async {
            while !is_so(&self.got.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(
            seen.is_ok(),
            "{what}: {:#?}",
            self.got.lock().unwrap().spans
        );
    }

    /// The spans of one trace, by start time.
    async fn trace(&self, id: &str, count: usize) -> Vec<Span> {
        let of = |got: &Got| {
            let spans = got.spans.iter().filter(|span| hex(&span.trace_id) == id);
            spans.cloned().collect::<Vec<_>>()
        };
        self.until("the spans of a trace", |got| of(got).len() >= count)
            .await;
        let mut spans = of(&self.got.lock().unwrap());
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text; empty if it is missing.
fn word(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key);
    let value = found.and_then(|one| one.value.as_ref()?.value.as_ref());
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

/// Some attributes of a span, in this order.
fn words<const N: usize>(span: &Span, keys: [&str; N]) -> [String; N] {
    keys.map(|key| word(&span.attributes, key))
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

/// The sidecar with these dependencies and lines of `[otel]`.
fn sidecar(folder: &tempfile::TempDir, otel: &str, dependencies: &str) -> Sidecar {
    configured(folder.path(), &format!("[otel]\n{otel}\n{dependencies}"));
    let mut command = command(folder.path());
    command.env("OTEL_BSP_SCHEDULE_DELAY", "20");
    Sidecar::start(command, 1)
}

fn http_dependency(name: &str, upstream: &Upstream, more: &str) -> String {
    let url = upstream.url();
    format!("[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}/base\"\n{more}\n")
}

/// Makes a call with a trace context of this number; returns the trace id and the response.
async fn call(
    sidecar: &Sidecar,
    path: &str,
    number: u8,
    flags: &str,
) -> (String, reqwest::Response) {
    let trace = format!("{}{number:02x}", &TRACE[2..]);
    let request = http().get(sidecar.url(path));
    let request = request.header("traceparent", format!("00-{trace}-{CALLER}-{flags}"));
    (trace, request.send().await.unwrap())
}

/// An upstream that echoes its trace context, with the status that the path names.
async fn told() -> Upstream {
    Upstream::of(async |request: Request| {
        let of = |name: &str| {
            let value = request.headers().get(name);
            value.map_or("-", |value| value.to_str().unwrap())
        };
        let names = ["traceparent", "tracestate", "baggage"];
        let text = names.map(of).join(" ");
        let status = request.uri().path().rsplit('/').next().unwrap_or_default();
        let status = status.parse().unwrap_or(200);
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        (status, text)
    })
    .await
}

#[tokio::test]
async fn a_call_has_its_place_in_the_trace_that_its_caller_began() {
    let (upstream, collector) = (told().await, Collector::start().await);
    let folder = folder();
    let otel = format!(
        "endpoint = \"http://{}/\"\nheaders = \"api-key=s3cret%2Ckey\"\n\
         service_name = \"edge\"\ninterval = \"100ms\"\nsample_ratio = 0.0",
        collector.address
    );
    let sidecar = sidecar(&folder, &otel, &http_dependency("web", &upstream, ""));
    let request = http().get(sidecar.url("/web/find?q=hidden-word"));
    let request = request
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "a=1")
        .header("tracestate", "b=2")
        .header("baggage", "user=hidden-user")
        .header("authorization", "Bearer hidden-token")
        .header("user-agent", "hidden-agent");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let told = response.text().await.unwrap();

    let spans = collector.trace(TRACE, 2).await;
    let [server, client] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(server.kind(), SpanKind::Server);
    assert_eq!(hex(&server.parent_span_id), CALLER);
    assert_eq!(server.name, "GET /web");
    assert_eq!(server.trace_state, "a=1,b=2");
    let keys = [
        "http.request.method",
        "url.path",
        "url.scheme",
        "http.route",
        "network.protocol.version",
        "client.address",
        "http.response.status_code",
        "breakerbox.dependency",
        "breakerbox.source",
        "breakerbox.state",
        "breakerbox.attempts",
        "error.type",
    ];
    let expected = [
        "GET",
        "/web/find",
        "http",
        "/web/*",
        "1.1",
        "127.0.0.1",
        "200",
        "web",
        "primary",
        "closed",
        "1",
        "",
    ];
    assert_eq!(words(server, keys), expected);
    assert_eq!(client.kind(), SpanKind::Client);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(client.name, "GET");
    let keys = [
        "url.full",
        "server.address",
        "server.port",
        "http.response.status_code",
        "breakerbox.dependency",
        "http.request.resend_count",
    ];
    let full = format!("http://{}/base/find", upstream.address);
    let port = upstream.address.port().to_string();
    assert_eq!(
        words(client, keys),
        [&full, "127.0.0.1", &port, "200", "web", ""]
    );
    assert!(!is_error(server) && !is_error(client));
    for span in [server, client] {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);

    // The dependency receives the context of the attempt; other headers are unchanged.
    let own = format!(
        "00-{TRACE}-{}-01 a=1,b=2 user=hidden-user",
        hex(&client.span_id)
    );
    assert_eq!(told, own);

    // Metrics arrive too, each request with the API key.
    collector
        .until("a report", |got| !got.reports.is_empty())
        .await;
    let got = collector.got.lock().unwrap();
    assert!(
        got.keys.iter().all(|key| key == "s3cret,key"),
        "{:?}",
        got.keys
    );
    assert!(
        got.services.iter().all(|name| name == "edge"),
        "{:?}",
        got.services
    );
    let all = String::from_utf8_lossy(&got.bytes);
    for secret in ["hidden", "s3cret"] {
        assert!(!all.contains(secret), "{secret} was told the collector");
    }
}

#[tokio::test]
async fn each_attempt_and_each_refusal_shows_what_became_of_it() {
    let (upstream, collector) = (told().await, Collector::start().await);
    let hanging = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let torn = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        stream.write_all(half.as_bytes()).await.unwrap();
    })
    .await;
    let retry = "idempotent = [\"GET\"]\nretry = { max_attempts = 2, backoff = { base = \"1ms\" } }\n\
                 breaker = { failure_threshold = 2, recovery_timeout = \"1h\", recovery_backoff = { max = \"1h\" } }";
    let spare = "[[dependencies.spared.fallback]]\nkind = \"dependency\"\nname = \"web\"";
    let dependencies = [
        http_dependency("web", &upstream, ""),
        http_dependency("retried", &upstream, retry),
        http_dependency(
            "spared",
            &hanging,
            &format!("timeout = {{ attempt = \"50ms\" }}\n{spare}"),
        ),
        http_dependency("torn", &torn, ""),
        http_dependency("hung", &hanging, ""),
    ];
    let folder = folder();
    let otel = format!(
        "endpoint = \"http://{}\"\nmetrics = false",
        collector.address
    );
    let sidecar = sidecar(&folder, &otel, &dependencies.concat());
    let outcome = [
        "http.response.status_code",
        "error.type",
        "breakerbox.cancelled",
    ];

    // Two failed attempts open the breaker.
    let (trace, response) = call(&sidecar, "/retried/503", 1, "01").await;
    assert_eq!(response.status(), 503);
    drop(response);
    let spans = collector.trace(&trace, 3).await;
    let (server, attempts) = spans.split_first().unwrap();
    assert_eq!(words(server, outcome), ["503", "503", ""]);
    assert!(is_error(server));
    let keys = [
        "breakerbox.state",
        "breakerbox.attempts",
        "breakerbox.source",
    ];
    assert_eq!(words(server, keys), ["open", "2", "primary"]);
    for (attempt, again) in attempts.iter().zip(["", "1"]) {
        assert_eq!(attempt.parent_span_id, server.span_id);
        assert_eq!(words(attempt, outcome), ["503", "503", ""]);
        assert_eq!(
            word(&attempt.attributes, "http.request.resend_count"),
            again
        );
        assert!(is_error(attempt));
    }

    // Refused: no attempt was made.
    let (trace, response) = call(&sidecar, "/retried/503", 2, "01").await;
    assert_eq!(response.status(), 503);
    drop(response);
    let server = &collector.trace(&trace, 1).await[0];
    assert_eq!(words(server, keys), ["open", "0", "gateway"]);

    // The attempt times out, so another dependency answers.
    let (trace, response) = call(&sidecar, "/spared/200", 3, "01").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:web");
    let told = response.text().await.unwrap();
    let spans = collector.trace(&trace, 3).await;
    let [server, slow, other] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(
        word(&server.attributes, "breakerbox.source"),
        "fallback:web"
    );
    assert_eq!(words(slow, outcome), ["", "timeout", ""]);
    assert_eq!(word(&slow.attributes, "breakerbox.dependency"), "spared");
    assert_eq!(words(other, outcome), ["200", "", ""]);
    assert_eq!(word(&other.attributes, "breakerbox.dependency"), "web");
    assert_eq!(other.parent_span_id, server.span_id);
    assert!(
        told.starts_with(&format!("00-{trace}-{}-01", hex(&other.span_id))),
        "{told}"
    );

    // The response breaks off in the middle.
    let (trace, response) = call(&sidecar, "/torn/", 4, "01").await;
    assert!(response.bytes().await.is_err());
    let spans = collector.trace(&trace, 2).await;
    assert_eq!(words(&spans[0], outcome), ["200", "broke_off", ""]);
    assert_eq!(words(&spans[1], outcome), ["200", "reset", ""]);
    assert!(is_error(&spans[0]) && is_error(&spans[1]));

    // The caller disconnects.
    let trace = format!("{}05", &TRACE[2..]);
    let head = format!(
        "GET /hung/ HTTP/1.1\r\nhost: localhost\r\ntraceparent: 00-{trace}-{CALLER}-01\r\n\r\n"
    );
    let before = hanging.hits();
    let address = sidecar.url("").replace("http://", "");
    let mut caller = TcpStream::connect(address).await.unwrap();
    caller.write_all(head.as_bytes()).await.unwrap();
    while hanging.hits() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(caller);
    let spans = collector.trace(&trace, 2).await;
    for span in &spans {
        assert_eq!(words(span, outcome), ["", "", "true"]);
    }

    // An unknown dependency and an unknown method.
    let (trace, _) = call(&sidecar, "/nobody/200", 6, "01").await;
    let server = &collector.trace(&trace, 1).await[0];
    assert_eq!(words(server, outcome), ["404", "", ""]);
    assert_eq!((server.name.as_str(), is_error(server)), ("GET", false));
    assert!(collector.got.lock().unwrap().reports.is_empty());
}

#[tokio::test]
async fn callers_decide_what_is_kept_and_where_there_is_none_the_ratio_does() {
    let (upstream, collector) = (told().await, Collector::start().await);
    let folder = folder();
    let otel = format!(
        "endpoint = \"http://{}\"\nmetrics = false\nsample_ratio = 0.0",
        collector.address
    );
    let sidecar = sidecar(&folder, &otel, &http_dependency("web", &upstream, ""));
    // The trace is not sampled, but its context is passed on.
    let (trace, response) = call(&sidecar, "/web/", 1, "00").await;
    let told = response.text().await.unwrap();
    assert!(
        told.starts_with(&format!("00-{trace}-")) && !told.contains(CALLER),
        "{told}"
    );
    assert!(told.contains("-00 "), "{told}");
    // Without a valid context, a new trace begins; it is not sampled.
    for parent in ["", "00-nonsense"] {
        let request = http().get(sidecar.url("/web/"));
        let request = request
            .header("traceparent", parent)
            .header("tracestate", "a=1");
        let told = request.send().await.unwrap().text().await.unwrap();
        let parts: Vec<&str> = told.split([' ', '-']).collect();
        assert_eq!(
            (parts[1].len(), parts[2].len(), parts[3]),
            (32, 16, "00"),
            "{told}"
        );
        assert!(!told.contains("a=1"), "{told}");
    }
    let (kept, response) = call(&sidecar, "/web/", 2, "01").await;
    drop(response);
    collector.trace(&kept, 2).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let got = collector.got.lock().unwrap();
    assert!(
        got.spans.iter().all(|span| hex(&span.trace_id) == kept),
        "{:#?}",
        got.spans
    );
}

#[tokio::test]
async fn what_is_left_is_sent_before_the_process_ends_and_metrics_are_those_of_a_scrape() {
    let (upstream, collector) = (told().await, Collector::start().await);
    let folder = folder();
    configured(folder.path(), &http_dependency("web", &upstream, ""));
    let mut command = command(folder.path());
    // The standard variables suffice.
    command
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=from-attributes,region=x",
        )
        .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let sidecar = Sidecar::start(command, 1);
    for path in ["/web/200", "/web/200", "/web/503"] {
        let response = http().get(sidecar.url(path)).send().await.unwrap();
        response.bytes().await.unwrap();
    }
    let scraped = http().get(sidecar.admin("/metrics")).send().await.unwrap();
    let scraped = scraped.text().await.unwrap();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));

    let got = collector.got.lock().unwrap();
    assert_eq!(got.spans.len(), 6, "{:#?}", got.spans);
    assert_eq!(got.services, ["from-attributes"]);
    assert!(got.keys.iter().all(|key| key == "k"));
    let [report] = &got.reports[..] else {
        panic!("{} reports", got.reports.len());
    };
    let [resource] = &report.resource_metrics[..] else {
        panic!("{report:?}");
    };
    let described = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(word(described, "service.name"), "from-attributes");
    assert_eq!(word(described, "region"), "x");
    assert_eq!(
        word(described, "service.version"),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(word(described, "service.instance.id").len(), 32);
    let metrics = &resource.scope_metrics[0].metrics;
    let find = |name: &str| {
        let mut all = metrics.iter();
        all.find(|metric| metric.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let Some(Data::Sum(calls)) = &find("breakerbox.calls").data else {
        panic!("a counter is a sum");
    };
    assert!(calls.is_monotonic && calls.aggregation_temporality == 2);
    let count = |result: &str| {
        let mut points = calls.data_points.iter();
        let point = points.find(|point| word(&point.attributes, "result") == result);
        let point = point.unwrap();
        assert_eq!(word(&point.attributes, "dependency"), "web");
        assert!(point.time_unix_nano >= point.start_time_unix_nano);
        assert!(point.start_time_unix_nano > 0);
        let Some(Number::AsDouble(value)) = point.value else {
            panic!("{point:?}");
        };
        value
    };
    assert_eq!(
        (count("primary"), count("failed"), count("refused")),
        (2.0, 1.0, 0.0)
    );
    let duration = find("breakerbox.attempt_duration");
    assert_eq!(duration.unit, "s");
    let Some(Data::Histogram(latency)) = &duration.data else {
        panic!("a histogram stays one");
    };
    let point = &latency.data_points[0];
    assert_eq!(point.count, 3);
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), 3);
    assert!(point.sum.is_some_and(|sum| sum > 0.0 && sum < 60.0));
    assert!(matches!(
        find("breakerbox.breaker_state").data,
        Some(Data::Gauge(_))
    ));

    // Each metric of the scrape is exported, and no other.
    let types = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let mut expected: Vec<String> = types
        .filter_map(|line| line.split(' ').next())
        .map(|name| {
            let name = name.trim_end_matches("_total");
            let name = name.trim_end_matches("_seconds").trim_end_matches("_bytes");
            name.replacen('_', ".", 1)
        })
        .collect();
    let mut found: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    expected.sort();
    found.sort_unstable();
    assert_eq!(found, expected);
}
