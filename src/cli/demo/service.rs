//! The demo's client code: HTTP by `reqwest`, classified by the configuration.
//!
//! It does no retries: that is the runtime's task (rule LIM-4).

use std::sync::Arc;
use std::time::Duration;

use breakerbox::policy::{ClassifySettings, Symptom};
use breakerbox::prelude::*;
use serde_json::Value;

/// This file: panics in it are part of the demo.
pub(crate) const FILE: &str = file!();

/// A request of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) topic: String,
    /// True if it adds something instead of looking it up.
    pub(crate) write: bool,
}

/// The response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookupResult(pub(crate) Vec<String>);

/// A failed attempt, with its verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct LookupError {
    text: String,
    verdict: Verdict,
}

/// The address of a service, and the classification of its responses; each worker makes its own
/// connection.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAddress {
    pub(crate) url: String,
    /// JSON key of the results in its responses.
    pub(crate) key: &'static str,
    /// True if its workers have the bug that the demo shows.
    pub(crate) trusting: bool,
    /// Time limit for connecting.
    pub(crate) connect: Option<Duration>,
    pub(crate) classify: Arc<ClassifySettings>,
}

/// One worker's connection to a service.
#[derive(Debug)]
pub(crate) struct ServiceConnection {
    http: reqwest::Client,
    place: ServiceAddress,
}

impl ServiceConnection {
    pub(crate) fn connect(place: ServiceAddress) -> Result<Self, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .retry(reqwest::retry::never());
        if let Some(connect) = place.connect {
            http = http.connect_timeout(connect);
        }
        let http = http.build()?;
        Ok(Self { http, place })
    }

    fn failed(&self, symptom: Symptom, text: impl Into<String>) -> LookupError {
        LookupError {
            text: text.into(),
            verdict: Verdict::from(self.place.classify.class_of(symptom)),
        }
    }

    fn lost(&self, error: &reqwest::Error) -> LookupError {
        let (symptom, text) = if error.is_timeout() {
            (Symptom::Timeout, "no answer in time")
        } else if error.is_connect() {
            (Symptom::Connect, "no connection")
        } else {
            (Symptom::Reset, "the connection broke")
        };
        self.failed(symptom, text)
    }
}

impl Dependency for ServiceConnection {
    type Request = Question;
    type Response = LookupResult;
    type Error = LookupError;

    async fn call(&self, question: Question, _: &CallContext) -> Result<LookupResult, LookupError> {
        let url = format!("{}/{}", self.place.url, question.topic);
        let request = if question.write {
            self.http.post(url)
        } else {
            self.http.get(url)
        };
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.as_u16() >= 400 {
            let hint = retry_after(&response);
            let mut error = self.failed(Symptom::Status(status.as_u16()), status.to_string());
            error.verdict.retry_after = hint;
            return Err(error);
        }
        let body: Value = response.json().await.map_err(|error| self.lost(&error))?;
        match found(&body, self.place.key) {
            Some(found) => Ok(found),
            // The bug: it trusts input from outside.
            None if self.place.trusting => panic!("the answer has no {:?}", self.place.key),
            None => Err(self.failed(Symptom::Reset, "the answer is incomplete")),
        }
    }

    fn classify(result: Result<&LookupResult, &LookupError>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(error) => error.verdict,
        }
    }

    fn is_idempotent(question: &Question) -> bool {
        !question.write
    }

    fn is_write(question: &Question) -> bool {
        question.write
    }
}

/// Parses a response, or the body of a fixed fallback. Returns `None` if it is incomplete.
pub(crate) fn found(body: &Value, key: &str) -> Option<LookupResult> {
    let items = body.get(key)?.as_array()?;
    let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().map(LookupResult)
}

/// Reads `Retry-After` in seconds; dates are not supported here.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_its_key_is_none() {
        let body = serde_json::json!({ "nodes": ["a", "b"] });
        let both = LookupResult(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(found(&body, "nodes"), Some(both));
        assert_eq!(found(&body, "results"), None);
    }
}
