//! Responses of services: their hints, their messages, and the usual meaning of a status.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::agents::ServiceError;
use crate::agents::failure::clean_message;
use crate::policy::{Class, Symptom};
use crate::{Verdict, retry_after};

/// Places of the message in the error bodies of JSON services, the most telling first.
const MESSAGES: [&str; 8] = [
    "/error/message",
    "/error/detail",
    "/detail/error",
    "/status/error",
    "/message",
    "/detail",
    "/error_description",
    "/error",
];

/// A response of a service, with any status.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServiceResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
}

impl ServiceResponse {
    /// Creates a response, for tests of the code that reads one.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    /// Adds a header; one that is not valid is left out.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Returns true for the statuses 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Parses the body as JSON.
    ///
    /// # Errors  The body has another shape: a failure of the service, never an empty answer.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ServiceError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The position of the error, never the text there.
            let place = format!("line {}, column {}", error.line(), error.column());
            ServiceError::malformed(format!("its response is invalid ({place})"))
        })
    }

    /// Parses the body of a success as JSON.
    ///
    /// # Errors  As [`ServiceResponse::failure`] and [`ServiceResponse::json`].
    pub fn success<T: serde::de::DeserializeOwned>(&self) -> Result<T, ServiceError> {
        if self.is_success() {
            self.json()
        } else {
            Err(self.failure())
        }
    }

    /// Returns the wait that the service asks for: the largest hint in headers and body, such as
    /// `Retry-After`.
    #[must_use]
    pub fn retry_hint(&self) -> Option<Duration> {
        retry_after::read(self.status, &self.headers, Some(&self.body))
    }

    /// Returns the usual classification of a status that is not a success, with the hint.
    ///
    /// 429 is throttled. 401, 402, 403, 404, 405, 410 and redirects are set-up mistakes: every call
    /// fails until an operator corrects them. 408 and 499 are failures. The other 4xx are rejected:
    /// mistakes of the one call. The settings classify the 5xx.
    ///
    /// # Source  Rule BRK-7.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let symptom = Symptom::Status(self.status);
        let class = match self.status {
            429 => Class::Throttled,
            300..=399 | 401..=405 | 410 => Class::Misconfigured,
            408 | 499 => Class::Failure,
            400..=499 => Class::Rejected,
            _ => return self.with_hint(Verdict::from(symptom)),
        };
        self.with_hint(Verdict::from(class).symptom(symptom))
    }

    /// Returns the error of a response that is not a success, with the usual classification.
    #[must_use]
    pub fn failure(&self) -> ServiceError {
        self.failure_as(self.verdict())
    }

    /// Returns the error of a response that is not a success, with this class for a status that
    /// means something else at this service.
    #[must_use]
    pub fn failure_of(&self, class: Class) -> ServiceError {
        let verdict = Verdict::from(class).symptom(Symptom::Status(self.status));
        self.failure_as(self.with_hint(verdict))
    }

    /// Returns the error of a response that is not a success, with this verdict as it is.
    #[must_use]
    pub fn failure_as(&self, verdict: Verdict) -> ServiceError {
        let mut text = format!("it answered {}", self.status);
        let message = self.message();
        if !message.is_empty() {
            text.push_str(": ");
            text.push_str(&message);
        }
        ServiceError::new(verdict, text)
    }

    /// Returns the service's own words about an error, safe to be shown; empty if there are none.
    #[must_use]
    pub fn message(&self) -> String {
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            return clean_message(&String::from_utf8_lossy(&self.body));
        };
        let mut texts = MESSAGES.iter().filter_map(|path| body.pointer(path));
        let text = texts.find_map(Value::as_str);
        clean_message(text.unwrap_or_default())
    }

    fn with_hint(&self, verdict: Verdict) -> Verdict {
        match self.retry_hint() {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::http::percent_encoded;

    #[test]
    fn brk_7_a_status_has_its_usual_meaning_and_its_hint() {
        for (status, class) in [
            (302, Class::Misconfigured),
            (400, Class::Rejected),
            (401, Class::Misconfigured),
            (404, Class::Misconfigured),
            (408, Class::Failure),
            (422, Class::Rejected),
            (429, Class::Throttled),
            (503, Class::Failure),
        ] {
            let verdict = ServiceResponse::new(status, "{}").verdict();
            assert_eq!(verdict.class, class, "{status}");
        }
        let hinted = ServiceResponse::new(503, "").with_header("retry-after", "7");
        let wait = hinted.failure().verdict().retry_after;
        assert_eq!(wait, Some(Duration::from_secs(7)));
        let taken = hinted.failure_of(Class::Throttled).verdict();
        assert_eq!((taken.class, taken.retry_after), (Class::Throttled, wait));
    }

    #[test]
    fn the_message_is_found_in_every_usual_place() {
        for body in [
            r#"{"error":{"message":"no such model","code":"x"}}"#,
            r#"{"status":{"error":"no such model"},"time":0.0}"#,
            r#"{"error":"NotFoundError","message":"no such model"}"#,
            r#"{"detail":{"error":"no such model"}}"#,
            r#"{"error":"no such model"}"#,
            "no such model",
        ] {
            let answer = ServiceResponse::new(404, body);
            assert_eq!(
                answer.failure().to_string(),
                "it answered 404: no such model"
            );
        }
        let page = ServiceResponse::new(502, "<html>");
        assert_eq!(page.message(), "(a page for browsers)");
        assert_eq!(
            ServiceResponse::new(500, "[]").failure().to_string(),
            "it answered 500"
        );
    }

    #[test]
    fn a_text_is_encoded_for_any_part_of_a_url() {
        assert_eq!(percent_encoded("a b/ü&=~"), "a%20b%2F%C3%BC%26%3D~");
    }
}
