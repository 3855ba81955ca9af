//! The requests to one language model: its key, its name of the model, and the headers that it gets.
//!
//! Bodies pass byte for byte, but for the value of `model`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, COOKIE, FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::message::{HttpRequest, ModelCall};
use crate::config::{FallbackConfig, FallbackOn, ModelConfig, ModelKeys, Secret};
use crate::model::{
    Api, ApiShape, ModelErrorKind, ModelRequest, TokenEstimate, put_key, replace_model,
    without_key_in_query,
};
use crate::retry_after;

/// The part of a route that only models have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelRoute {
    pub(super) api: Api,
    key: Option<(Option<HeaderName>, Secret)>,
    names: BTreeMap<String, String>,
    repeat: bool,
    pub(super) callers_retry: bool,
    pub(super) keys_by: ModelKeys,
    pub(super) max_replay_body: u64,
    pub(super) probe_stream: Duration,
    /// Kinds of rejected prompts that a fallback may answer.
    pub(super) for_others: Vec<ModelErrorKind>,
}

impl ModelRoute {
    pub(super) fn of(config: &ModelConfig, fallbacks: &[FallbackConfig]) -> Self {
        let for_others = |(on, kind)| {
            let is_named = fallbacks.iter().any(|fallback| fallback.on.contains(&on));
            is_named.then_some(kind)
        };
        let rejected = [
            (FallbackOn::TooLong, ModelErrorKind::TooLong),
            (FallbackOn::Filtered, ModelErrorKind::Filtered),
        ];
        let header = config.key_header.as_ref();
        let header = header.and_then(|name| HeaderName::try_from(name).ok());
        Self {
            api: config.api,
            key: config.key.clone().map(|key| (header, key)),
            names: config.names.clone(),
            repeat: config.repeat,
            callers_retry: config.callers_retry,
            keys_by: config.keys_by,
            max_replay_body: config.max_replay_body,
            probe_stream: config.probe_stream,
            for_others: rejected.into_iter().filter_map(for_others).collect(),
        }
    }

    /// Returns true if it has a key of ours.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Returns true if the body of such a request is read before anything else: it may name a model.
    pub(super) fn reads(&self, method: &Method, target: &str, headers: &HeaderMap) -> bool {
        let is_generating = ApiShape::of(self.api, target).is_generating();
        *method == Method::POST && (is_generating || retry_after::is_json(headers, b""))
    }

    /// Returns true if generating may be repeated.
    pub(super) fn repeats(&self) -> bool {
        self.repeat
    }

    /// Reads a request. `body`: whole, if it was read.
    pub(super) fn call(&self, method: &Method, target: &str, body: Option<&Bytes>) -> ModelCall {
        // LLM-1: the dialect only reads; everything else is the gateway's.
        let mut read = ModelRequest::read(self.api, target, body.map_or(&[], |body| body));
        if *method != Method::POST {
            // It lists, shows or deletes.
            read.shape = ApiShape::Other(self.api);
        }
        ModelCall {
            shape: read.shape,
            is_stream: read.is_streamed,
            // LLM-11: generating changes nothing but the bill.
            is_repeatable: self.repeat && *method == Method::POST && read.is_repeatable(),
            asked: read.model.clone(),
            read,
        }
    }

    /// Returns the tokens that an attempt may take. `output_estimate`: of its answer.
    pub(super) fn estimate(call: &ModelCall, output_estimate: u64) -> TokenEstimate {
        call.read.estimate(output_estimate)
    }

    /// Returns the model that the provider is asked for.
    pub(super) fn sent<'a>(&'a self, asked: &'a str) -> &'a str {
        let named = self.names.get(asked).or_else(|| self.names.get("*"));
        named.map_or(asked, String::as_str)
    }

    /// Returns the key of the breaker and the pause. `given`: by the caller's header.
    pub(super) fn key_of(&self, call: &ModelCall, given: Option<Arc<str>>) -> Option<Arc<str>> {
        match self.keys_by {
            // LLM-18: a limit of one model says nothing of another one.
            ModelKeys::Model => call
                .asked
                .as_deref()
                .map(|asked| Arc::from(self.sent(asked))),
            _ => given,
        }
    }

    /// Returns the request as the provider gets it.
    pub(super) fn outbound(&self, request: &HttpRequest) -> HttpRequest {
        let mut headers = request.headers().clone();
        // LLM-15: a provider learns nothing of the caller, and answers without a coding.
        for name in [COOKIE, FORWARDED, VIA] {
            headers.remove(name);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut target = request.target().to_owned();
        if let Some((header, key)) = &self.key {
            // LLM-14: ours replaces the caller's in every place. The configuration has checked it.
            let _ = put_key(&mut headers, self.api, header.as_ref(), key.expose());
            target = without_key_in_query(&target).into_owned();
        }
        if self.api == Api::OpenAi
            && let Some(rest) = target.strip_prefix("/v1/")
        {
            target = format!("/{rest}");
        }
        let mut body = request.body().cloned();
        if let Some(call) = request.model_call()
            && let Some(asked) = &call.asked
            && self.sent(asked) != asked
        {
            let whole = body.clone().unwrap_or_default();
            let replaced = replace_model(self.api, &target, &whole, self.sent(asked));
            target = replaced.target.unwrap_or(target);
            if let Some(new) = replaced.body {
                headers.remove(CONTENT_LENGTH);
                body = Some(Bytes::from(new));
            }
        }
        request.sent_to_model(target, headers, body)
    }
}
