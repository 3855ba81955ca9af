//! How the demo calls its dependencies: HTTP by `reqwest`, answers judged by the configuration.
//!
//! It retries nothing itself; that is the runtime's business (rule LIM-4).

use std::sync::Arc;
use std::time::Duration;

use breakerbox::policy::{ClassifySettings, Symptom};
use breakerbox::prelude::*;
use serde_json::Value;

/// This file: panics that come from here are part of the show.
pub(crate) const FILE: &str = file!();

/// What an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) topic: String,
    /// Whether it adds something instead of looking it up.
    pub(crate) write: bool,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found(pub(crate) Vec<String>);

/// An attempt that failed, with what it counts for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ServiceError {
    text: String,
    verdict: Verdict,
}

/// Where a service is and how its answers are judged; each worker connects anew.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// Under which key its answers hold what was found.
    pub(crate) key: &'static str,
    /// Whether its workers have the bug that the demo shows.
    pub(crate) trusting: bool,
    /// How long it may take to connect.
    pub(crate) connect: Option<Duration>,
    pub(crate) classify: Arc<ClassifySettings>,
}

/// One worker's connection to a service.
#[derive(Debug)]
pub(crate) struct Service {
    http: reqwest::Client,
    place: Place,
}

impl Service {
    pub(crate) fn connect(place: Place) -> Result<Self, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .retry(reqwest::retry::never());
        if let Some(connect) = place.connect {
            http = http.connect_timeout(connect);
        }
        let http = http.build()?;
        Ok(Self { http, place })
    }

    fn failed(&self, symptom: Symptom, text: impl Into<String>) -> ServiceError {
        ServiceError {
            text: text.into(),
            verdict: Verdict::from(self.place.classify.class_of(symptom)),
        }
    }

    fn lost(&self, error: &reqwest::Error) -> ServiceError {
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

impl Dependency for Service {
    type Request = Question;
    type Response = Found;
    type Error = ServiceError;

    async fn call(&self, question: Question, _: &CallContext) -> Result<Found, ServiceError> {
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
            // The bug: it trusts what comes from outside.
            None if self.place.trusting => panic!("the answer has no {:?}", self.place.key),
            None => Err(self.failed(Symptom::Reset, "the answer is incomplete")),
        }
    }

    fn classify(result: Result<&Found, &ServiceError>) -> Verdict {
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

/// Reads an answer, or the body of a fixed fallback; `None` when it is not all there.
pub(crate) fn found(body: &Value, key: &str) -> Option<Found> {
    let items = body.get(key)?.as_array()?;
    let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().map(Found)
}

/// `Retry-After` in seconds; a date is not understood here.
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
        let both = Found(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(found(&body, "nodes"), Some(both));
        assert_eq!(found(&body, "results"), None);
    }
}
