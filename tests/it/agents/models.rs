//! The fake model providers over real sockets: each fault, as a watch and the official SDKs see it.

use std::process::{Command, Stdio};

use breakerbox::agents::fakes::models::{ModelFakes, ModelFault, StreamPart};
use breakerbox::model::{
    Api, ApiShape, ModelErrorKind, ModelVerdict, StreamEnd, StreamWatch, WatchEvent, judge,
};
use serde_json::{Value, json};

use super::*;

const SHAPES: [(Api, &str, &str); 5] = [
    (Api::OpenAi, "/chat/completions", "/chat/completions"),
    (Api::OpenAi, "/responses", "/responses"),
    (Api::Anthropic, "/v1/messages", "/v1/messages"),
    (
        Api::Google,
        "/models/m-1:generateContent",
        "/models/m-1:streamGenerateContent?alt=sse",
    ),
    (
        Api::Google,
        "/models/m-1:generateContent",
        "/models/m-1:streamGenerateContent",
    ),
];

/// An answer of the fake, read to its end.
#[derive(Debug)]
struct FakeStream {
    shape: ApiShape,
    verdict: ModelVerdict,
    events: Vec<WatchEvent>,
    end: StreamEnd,
    is_broken: bool,
}

impl FakeStream {
    fn error(&self) -> Option<ModelErrorKind> {
        self.events.iter().find_map(|event| match event {
            WatchEvent::Error(error) => error.verdict.kind,
            _ => None,
        })
    }

    fn has_content(&self) -> bool {
        self.events.contains(&WatchEvent::Content)
    }
}

async fn post(fakes: &ModelFakes, api: Api, path: &str, is_streamed: bool) -> reqwest::Response {
    let url = format!("{}{path}", fakes.url(api));
    let mut body = json!({ "model": "m-1", "messages": [], "input": "Hello?" });
    if is_streamed {
        body["stream"] = true.into();
    }
    let http = reqwest::Client::new();
    http.post(url).json(&body).send().await.unwrap()
}

async fn whole(fakes: &ModelFakes, api: Api, path: &str) -> ModelVerdict {
    let response = post(fakes, api, path, false).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.unwrap();
    judge(ApiShape::of(api, path), status, &headers, &body)
}

/// Reads a stream until its end, or until the watch has seen so many events.
async fn stream(fakes: &ModelFakes, api: Api, path: &str, most: usize) -> FakeStream {
    let mut response = post(fakes, api, path, true).await;
    let shape = ApiShape::of(api, path);
    let status = response.status().as_u16();
    let verdict = judge(shape, status, response.headers(), b"");
    let mut watch = StreamWatch::new(shape);
    let (mut events, mut is_broken) = (Vec::new(), false);
    while events.len() < most {
        match response.chunk().await {
            Ok(Some(piece)) => events.extend(watch.feed(&piece)),
            Ok(None) => break,
            Err(_) => {
                is_broken = true;
                break;
            }
        }
    }
    let (end, last) = watch.finish();
    events.extend(last);
    if end == StreamEnd::Good {
        assert_eq!(watch.figures().model.as_deref(), Some("m-1"));
        assert_eq!(watch.figures().content_bytes, 17);
    }
    FakeStream {
        shape,
        verdict,
        events,
        end,
        is_broken,
    }
}

#[test]
fn llm_8_the_fakes_answer_well_in_each_shape() {
    run(|| async {
        let fakes = ModelFakes::start().await.unwrap();
        for (api, path, streamed) in SHAPES {
            assert!(whole(&fakes, api, path).await.is_good(), "{path}");
            let seen = stream(&fakes, api, streamed, usize::MAX).await;
            assert_eq!(seen.end, StreamEnd::Good, "{seen:?}");
            assert!(seen.verdict.is_good() && seen.has_content());
        }
        assert_eq!(fakes.calls(), 10);
        assert_eq!(fakes.seen()[0].body["model"], "m-1");
        assert_eq!(fakes.left(), 0);
    });
}

#[test]
fn llm_2_each_error_of_the_fakes_is_judged_as_what_it_is() {
    use ModelErrorKind as Kind;
    run(|| async {
        let fakes = ModelFakes::start().await.unwrap();
        for (api, path, streamed) in SHAPES {
            for kind in [
                Kind::RateLimit,
                Kind::QuotaUsedUp,
                Kind::Overloaded,
                Kind::Failure,
                Kind::WrongKey,
                Kind::NotPermitted,
                Kind::UnknownModel,
                Kind::TooLong,
                Kind::Rejected,
            ] {
                fakes.once(ModelFault::Error(kind));
                let verdict = whole(&fakes, api, path).await;
                assert_eq!(verdict.kind, Some(kind), "{path} {verdict:?}");
                assert!(verdict.is_own && !verdict.is_late);
                fakes.once(ModelFault::ErrorWithin(kind));
                let verdict = whole(&fakes, api, path).await;
                assert_eq!(verdict.kind, Some(kind), "{path} {verdict:?}");
                assert!(verdict.is_late);
                for part in [StreamPart::Head, StreamPart::Opening, StreamPart::Content] {
                    if kind == Kind::Rejected && path == "/responses" {
                        // Its error event has a code and neither a type nor a status.
                        continue;
                    }
                    fakes.once(ModelFault::ErrorEvent(part, kind));
                    let seen = stream(&fakes, api, streamed, usize::MAX).await;
                    assert_eq!(seen.error(), Some(kind), "{seen:?}");
                    assert_eq!(seen.end, StreamEnd::Failed);
                    assert_eq!(seen.has_content(), part == StreamPart::Content);
                }
            }
        }
    });
}

#[test]
fn llm_8_streams_that_are_cut_are_told_from_whole_ones() {
    run(|| async {
        let fakes = ModelFakes::start().await.unwrap();
        let parts = [StreamPart::Head, StreamPart::Opening, StreamPart::Content];
        for (api, _, streamed) in SHAPES {
            for part in parts {
                fakes.once(ModelFault::Truncated(part));
                let seen = stream(&fakes, api, streamed, usize::MAX).await;
                assert_eq!(seen.end, StreamEnd::Truncated, "{seen:?}");
                assert!(!seen.is_broken);
                assert_eq!(seen.has_content(), part == StreamPart::Content, "{seen:?}");
                fakes.once(ModelFault::Cut(part));
                let seen = stream(&fakes, api, streamed, usize::MAX).await;
                assert_eq!(seen.end, StreamEnd::Truncated, "{seen:?}");
                assert!(seen.is_broken, "{seen:?}");
            }
        }
    });
}

#[test]
fn llm_9_pings_alone_are_no_content_and_a_caller_that_leaves_is_seen() {
    run(|| async {
        let fakes = ModelFakes::start().await.unwrap();
        for (api, _, streamed) in SHAPES.into_iter().take(4) {
            let every = Duration::from_millis(1);
            fakes.once(ModelFault::Pings(StreamPart::Opening, every));
            let seen = stream(&fakes, api, streamed, 20).await;
            assert!(!seen.has_content(), "{seen:?}");
            assert!(
                seen.events.ends_with(&[WatchEvent::Ping]),
                "{:?}",
                seen.shape
            );
        }
        until(|| fakes.left() == 4).await;
        fakes.once(ModelFault::Stall(StreamPart::Content));
        let (api, _, streamed) = SHAPES[0];
        let seen = stream(&fakes, api, streamed, 2).await;
        assert!(seen.has_content());
        until(|| fakes.left() == 5).await;
    });
}

#[test]
fn llm_5_the_hints_of_the_fakes_are_read() {
    run(|| async {
        let fakes = ModelFakes::start().await.unwrap();
        let (api, path, _) = SHAPES[0];
        let lines = vec![("retry-after-ms", "1500".to_owned())];
        fakes.once(ModelFault::ErrorWith(ModelErrorKind::RateLimit, lines));
        let verdict = whole(&fakes, api, path).await;
        assert_eq!(verdict.retry_after, Some(Duration::from_millis(1_500)));
        let (api, path, _) = SHAPES[3];
        fakes.once(ModelFault::RetryInfo(Duration::from_secs(46)));
        let verdict = whole(&fakes, api, path).await;
        assert_eq!(verdict.retry_after, Some(Duration::from_secs(46)));
        fakes.set(Some(ModelFault::Html(502)));
        let verdict = whole(&fakes, api, path).await;
        assert_eq!(verdict.kind, Some(ModelErrorKind::Failure));
        assert!(!verdict.is_own);
    });
}

/// Runs the official SDK of an interface.
#[cfg(target_os = "linux")]
fn sdk(python: &std::path::Path, interface: &str, url: &str, how: &str) -> Value {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model_sdk.py");
    let mut command = Command::new(python);
    command
        .args([program, interface, url, how, "0"])
        .stdin(Stdio::null());
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let failed = || panic!("{said}{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| failed())
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn llm_13_the_official_sdks_read_the_fakes() {
    let Some(python) = crate::mcp::install::model_sdks() else {
        return;
    };
    let fakes = ModelFakes::start().await.unwrap();
    for (interface, api) in [
        ("chat", Api::OpenAi),
        ("responses", Api::OpenAi),
        ("messages", Api::Anthropic),
    ] {
        let url = fakes.url(api);
        for (how, pieces) in [("whole", 1), ("stream", 4)] {
            let said = sdk(&python, interface, &url, how);
            assert_eq!(said["text"], "Hello from a fake", "{said}");
            assert_eq!(said["pieces"], pieces, "{said}");
            assert_eq!(said["model"], "m-1", "{said}");
        }
        fakes.once(ModelFault::Error(ModelErrorKind::RateLimit));
        let said = sdk(&python, interface, &url, "stream");
        assert_eq!(said["error"], "RateLimitError", "{said}");
        assert_eq!(said["status"], 429, "{said}");
        // Without the gateway, an answer that is cut off is one for the SDK.
        fakes.once(ModelFault::Truncated(StreamPart::Content));
        let said = sdk(&python, interface, &url, "stream");
        assert_eq!(said["text"], "Hello", "{said}");
    }
}
