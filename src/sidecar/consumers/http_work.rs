//! A message as a request to an HTTP dependency, and the response as its answer.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_actors::{
    BrokenMessage, DeadLetterFacts, MessageEnding, MessageTerms, MessageWork, QueueMessage,
    WorkAnswer, WorkEnd, WorkFuture, dead_letter_text, ttl_of,
};
use breakerbox_policy::{BackoffSettings, BreakerAfter, Executed, MessageCallKind, RetrySettings};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::Readiness;
use crate::config::ConsumerConfig;
use crate::config::consumer::{is_subject, matches};
use crate::sidecar::gateway::message_calls::{
    MessageCalls, MessageReply, MessageRequest, has_idempotency_key, read_head,
};

/// Header with the method of the request; POST without it.
const METHOD: &str = "breakerbox-method";
/// Header with the path and the query of the request; / without it.
const PATH: &str = "breakerbox-path";
/// Header with the subject of the answer.
const ANSWER_TO: &str = "breakerbox-answer-to";

/// Maximum length of a problem document in a header.
const MAX_PROBLEM: usize = 8_000;

/// The calls of one consumer.
pub(super) struct HttpWork {
    dependency: String,
    answers: Option<String>,
    answer_subjects: Vec<String>,
    calls: MessageCalls,
}

impl HttpWork {
    pub(super) fn new(config: &ConsumerConfig, calls: MessageCalls) -> Self {
        Self {
            dependency: config.dependency.clone(),
            answers: config.answers.clone(),
            answer_subjects: config.answer_subjects.clone(),
            calls,
        }
    }

    /// Makes a request of a message.
    fn request(&self, message: &QueueMessage) -> Result<MessageRequest, BrokenMessage> {
        // MSG-11: a message is a request.
        let method = match message.header(METHOD) {
            None => Method::POST,
            Some(method) => Method::from_bytes(method.trim().as_bytes())
                .ok()
                .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
                .ok_or_else(|| broken("breakerbox-method is no method that can be passed on"))?,
        };
        let target = message.header(PATH).map_or("/", str::trim).to_owned();
        let mut headers = headers_of(message)?;
        let options = read_head(&target, &mut headers).map_err(broken)?;
        Ok(MessageRequest {
            is_idempotent: self.calls.is_idempotent(&self.dependency, &method)
                || has_idempotency_key(&headers),
            method,
            target,
            headers,
            body: Bytes::from_owner(Arc::clone(&message.payload)),
            options,
        })
    }

    /// Returns the subject of the answer to a message.
    fn answer_subject(&self, message: &QueueMessage) -> Result<Option<String>, BrokenMessage> {
        let Some(asked) = message.header(ANSWER_TO).map(str::trim) else {
            return Ok(self.answers.clone());
        };
        let mut allowed = self.answer_subjects.iter();
        let is_allowed = is_subject(asked) && allowed.any(|pattern| matches(pattern, asked));
        match is_allowed {
            true => Ok(Some(asked.to_owned())),
            false => Err(broken("breakerbox-answer-to is not in answer_subjects")),
        }
    }
}

impl MessageWork for HttpWork {
    fn dependency(&self) -> String {
        self.dependency.clone()
    }

    fn readiness(&self) -> Readiness {
        let ready = self.calls.readiness(&self.dependency);
        ready.unwrap_or_else(Readiness::of_none)
    }

    fn retry(&self) -> BackoffSettings {
        let settings = self.calls.settings(&self.dependency);
        settings.map_or_else(
            || RetrySettings::default().backoff,
            |settings| settings.retry.backoff,
        )
    }

    fn terms(&self, message: &QueueMessage) -> Result<MessageTerms, BrokenMessage> {
        let request = self.request(message)?;
        let mut terms = MessageTerms::default();
        terms.is_idempotent = request.is_idempotent;
        terms.ttl = ttl_of(message)?;
        terms.answer_subject = self.answer_subject(message)?;
        Ok(terms)
    }

    fn call<'a>(
        &'a self,
        message: &'a QueueMessage,
        _: &'a MessageTerms,
        left: Option<Duration>,
    ) -> WorkFuture<'a> {
        Box::pin(async move {
            let mut request = match self.request(message) {
                Ok(request) => request,
                Err(_) => return not_called(None),
            };
            let timeouts = request.options.timeout.into_iter().chain(left);
            request.options.timeout = timeouts.min();
            let result = self.calls.call(&self.dependency, request).await;
            let Some(ending) = result.ending else {
                return not_called(result.problem);
            };
            WorkEnd {
                ending,
                answer: result.reply.map(answer).unwrap_or_default(),
                problem: result.problem.map(|problem| problem.to_string()),
            }
        })
    }

    fn problem(&self, facts: &DeadLetterFacts, last: Option<&str>) -> String {
        let last = last.and_then(|last| serde_json::from_str(last).ok());
        let mut problem = match last {
            Some(Value::Object(problem)) => problem,
            _ => {
                let own = serde_json::from_str(&dead_letter_text(facts));
                let Ok(Value::Object(own)) = own else {
                    return dead_letter_text(facts);
                };
                own
            }
        };
        let executed = facts.executed.to_string();
        problem.insert("dependency".to_owned(), json!(self.dependency));
        problem.insert("consumer".to_owned(), json!(facts.consumer));
        problem.insert("reason".to_owned(), json!(facts.reason.as_str()));
        problem.insert("executed".to_owned(), json!(executed));
        problem.insert("deliveries".to_owned(), json!(facts.deliveries));
        problem.insert("failures".to_owned(), json!(facts.failures));
        problem.insert("crashes".to_owned(), json!(facts.crashes));
        let text = ascii(&Value::Object(problem).to_string());
        match text.len() {
            0..=MAX_PROBLEM => text,
            _ => dead_letter_text(facts),
        }
    }
}

/// The end of a message for which no call was made: the dependency is not there, or there is no
/// memory for its body.
fn not_called(problem: Option<Value>) -> WorkEnd {
    let kind = match problem {
        Some(_) => MessageCallKind::NoSlotFree,
        None => MessageCallKind::Refused,
    };
    WorkEnd {
        ending: MessageEnding::new(kind, Executed::No, None, BreakerAfter::NotClosed(None)),
        answer: WorkAnswer::default(),
        problem: problem.map(|problem| problem.to_string()),
    }
}

/// Makes the answer to a message of a response.
fn answer(reply: MessageReply) -> WorkAnswer {
    let own = [
        ("breakerbox-status", reply.status.as_u16().to_string()),
        ("breakerbox-source", reply.source),
        ("breakerbox-attempts", reply.attempts.to_string()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let theirs = reply.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        // Ours are ours to say, and the length is that of the payload.
        let is_ours = name.starts_with("breakerbox-") || name == "content-length";
        let value = value.to_str().ok().filter(|_| !is_ours)?;
        Some((name.to_owned(), value.to_owned()))
    });
    WorkAnswer {
        headers: own.into_iter().chain(theirs).collect(),
        payload: Arc::from(&reply.body[..]),
    }
}

/// Returns the headers of a message that are those of its request.
pub(super) fn headers_of(message: &QueueMessage) -> Result<HeaderMap, BrokenMessage> {
    // Of ours, only those that say how the call is made are read further on.
    const OPTIONS: [&str; 2] = ["breakerbox-key", "breakerbox-priority"];
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        let lower = name.to_ascii_lowercase();
        let is_ours = lower.starts_with("breakerbox-") && !OPTIONS.contains(&lower.as_str());
        if is_ours || lower.starts_with("nats-") {
            continue;
        }
        let name = HeaderName::try_from(lower);
        let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str())) else {
            return Err(broken("a header of it is none of HTTP"));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// Writes a text of JSON in ASCII letters alone: headers take no others.
pub(super) fn ascii(json: &str) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
            continue;
        }
        let mut units = [0; 2];
        for unit in letter.encode_utf16(&mut units) {
            // Writing into a string cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

fn broken(text: &str) -> BrokenMessage {
    BrokenMessage(text.to_owned())
}
