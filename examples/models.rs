//! Two model providers, asked with `reqwest`: an answer begins with its first content, so a provider
//! that fails before it is replaced unseen, and a used-up quota pauses it.
//!
//! `cargo run --example models --features agents`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::fmt;

use breakerbox::CallOptions;
use breakerbox::agents::fakes::models::{ModelFakes, ModelFault, StreamPart};
use breakerbox::model::{
    Api, ApiShape, ModelErrorKind, ModelVerdict, StreamEnd, StreamWatch, WatchEvent, judge,
};
use breakerbox::prelude::*;
use futures_util::{TryStream, TryStreamExt as _, stream};

/// An attempt without a whole answer.
#[derive(Debug)]
enum AskError {
    /// The provider's own error.
    Provider(ModelVerdict),
    Connection(reqwest::Error),
    /// The stream ended without its mark.
    Truncated,
}

impl fmt::Display for AskError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(verdict) => {
                let kind = verdict.kind.map_or("no error", ModelErrorKind::words);
                write!(out, "{kind} ({})", verdict.status)
            }
            Self::Connection(_) => out.write_str("no connection"),
            Self::Truncated => out.write_str("the answer is cut off"),
        }
    }
}

impl std::error::Error for AskError {}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> Self {
        Self::Connection(error)
    }
}

/// Tells the runtime what the end of an attempt means.
fn by_result<S>(result: Result<&S, &AskError>) -> Verdict {
    match result {
        Ok(_) => Verdict::from(Class::Success),
        Err(AskError::Provider(verdict)) => verdict.verdict(),
        Err(AskError::Connection(error)) if error.is_connect() => Verdict::from(Symptom::Connect),
        Err(AskError::Connection(_) | AskError::Truncated) => Verdict::from(Symptom::Reset),
    }
}

/// Opens a stream of Chat Completions. Its first item is the first content, with all that came
/// before it, so that the call has begun only then.
async fn open(
    http: &reqwest::Client,
    base: &str,
) -> Result<impl TryStream<Ok = String, Error = AskError> + use<>, AskError> {
    let body = serde_json::json!({
        "model": "gpt-x", "stream": true, "messages": [{ "role": "user", "content": "Hello?" }],
    });
    let url = format!("{base}/chat/completions");
    let response = http.post(url).json(&body).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if status >= 400 {
        let body = response.bytes().await?;
        let verdict = judge(Api::OpenAi, status, &headers, &body);
        return Err(AskError::Provider(verdict));
    }
    let watch = StreamWatch::new(ApiShape::Chat);
    let state = Some((response, watch, Vec::new()));
    Ok(stream::try_unfold(state, async |state| {
        let Some((mut response, mut watch, mut held)) = state else {
            return Ok(None);
        };
        while let Some(piece) = response.chunk().await? {
            held.extend_from_slice(&piece);
            for event in watch.feed(&piece) {
                if let WatchEvent::Error(error) = event {
                    return Err(AskError::Provider(error.verdict));
                }
            }
            if watch.has_content() {
                let text = String::from_utf8_lossy(&held).into_owned();
                held.clear();
                return Ok(Some((text, Some((response, watch, held)))));
            }
        }
        match watch.finish().0 {
            StreamEnd::Good => Ok(Some((String::new(), None))),
            _ => Err(AskError::Truncated),
        }
    }))
}

/// Asks one provider after another; an answer that has begun is not begun again.
async fn ask(
    providers: &[(Client<Closures>, String)],
    http: &reqwest::Client,
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let options = CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    };
    for (client, base) in providers {
        let opened = client.run_stream_with(options.clone(), by_result, || open(http, base));
        match opened.await {
            Ok(pieces) => {
                let pieces: Vec<String> = pieces.try_collect().await?;
                return Ok((client.name().to_string(), pieces.concat()));
            }
            Err(error) => println!("  {error}"),
        }
    }
    Err("no provider has answered".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = (ModelFakes::start().await?, ModelFakes::start().await?);
    let runtime = Runtime::start(Settings::default()).await?;
    let mut providers = Vec::new();
    for (name, fake) in [("gpt", &first), ("gpt_eu", &second)] {
        let client = runtime
            .dependency(name)
            .configure(|settings| settings.retry.max_attempts = std::num::NonZeroU32::MIN)
            .start()
            .await?;
        providers.push((client, fake.url(Api::OpenAi)));
    }
    let http = reqwest::Client::new();

    let faults = [
        ("well", None, "gpt"),
        (
            "overloaded, as an error after HTTP 200 and the opening",
            Some(ModelFault::ErrorEvent(
                StreamPart::Opening,
                ModelErrorKind::Overloaded,
            )),
            "gpt_eu",
        ),
        (
            "cut off before the first content",
            Some(ModelFault::Truncated(StreamPart::Opening)),
            "gpt_eu",
        ),
        (
            "out of credit",
            Some(ModelFault::Error(ModelErrorKind::QuotaUsedUp)),
            "gpt_eu",
        ),
    ];
    for (words, fault, expected) in faults {
        println!("the first provider is {words}:");
        first.set(fault);
        let (name, answer) = ask(&providers, &http).await?;
        println!("  {name} has answered with {} bytes", answer.len());
        assert_eq!(name, expected);
        assert!(answer.contains("[DONE]"), "{answer}");
    }

    println!("it is well again, and its quota still used up:");
    first.set(None);
    let asked = first.calls();
    let (name, _) = ask(&providers, &http).await?;
    assert_eq!((name.as_str(), first.calls()), ("gpt_eu", asked));
    println!("  {name} has answered, and the first one was not asked");
    runtime.shutdown().await;
    Ok(())
}
