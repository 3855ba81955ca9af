//! Language models: what their providers' answers, events and requests say, in three dialects.
//!
//! Everything here is pure (rule LLM-1). It judges answers and the events of streams, words our own
//! errors as a provider would, and estimates and reads tokens. It never calls, waits or stores. The
//! gateway builds on it, and so can a program that asks a model with a client library of its own:
//!
//! ```
//! use breakerbox::model::{Api, ModelErrorKind, judge};
//! use http::HeaderMap;
//!
//! let body = br#"{"error":{"message":"You exceeded your current quota",
//!     "type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
//! let verdict = judge(Api::OpenAi, 429, &HeaderMap::new(), body);
//! assert_eq!(verdict.kind, Some(ModelErrorKind::QuotaUsedUp));
//! // the class for the runtime: a pause until the quota's reset, not one of a second
//! assert!(verdict.verdict().quota_used_up);
//! ```

// dialects
mod anthropic;
mod google;
mod openai;

// parts that they share
mod envelope;
mod error_verdict;
mod event_facts;
mod event_splitter;
mod json_walk;
mod shape_state;
mod stream_error;

// the interface
mod api;
mod judge;
mod key;
mod problem;
mod request;
mod usage;
mod verdict;
mod watch;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

pub use api::{Api, ApiShape, UnknownApi};
pub use judge::{figures_of, has_answer, is_whole, judge};
pub use key::{put_key, remove_keys, without_key_in_query};
pub use problem::{ModelProblem, error_body, error_event};
pub use request::{ModelReplacement, ModelRequest, replace_model};
pub use usage::{AnswerFigures, TokenEstimate, TokenKind, TokenUsage};
pub use verdict::{ErrorScope, ModelErrorKind, ModelVerdict, StreamError};
pub use watch::{StreamEnd, StreamWatch, WatchEvent};

#[cfg(test)]
mod tests;
