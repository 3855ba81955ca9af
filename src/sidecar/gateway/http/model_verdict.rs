//! Verdicts of a dialect for the runtime, and the media type of its streams.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};

use breakerbox_policy::{Class, Symptom};

use crate::Verdict;
use crate::model::{ErrorScope, ModelErrorKind, ModelVerdict};

/// Returns the verdict for the runtime. `has_key`: the key is ours.
pub(super) fn verdict_of(judged: &ModelVerdict, has_key: bool) -> Verdict {
    let verdict = judged.verdict();
    if speaks_of_key(judged) && !has_key {
        // FBK-2: the caller's own key is its own affair.
        return Verdict::from(Class::Rejected)
            .symptom(Symptom::Status(judged.status))
            .for_caller();
    }
    match judged.scope() {
        // LLM-18: a used-up quota and a wrong key hold for every model.
        ErrorScope::Dependency => verdict.for_all_keys(),
        ErrorScope::Model => verdict,
    }
}

/// Returns true if an error speaks of the key.
pub(super) fn speaks_of_key(judged: &ModelVerdict) -> bool {
    use ModelErrorKind::{NotPermitted, WrongKey};
    matches!(judged.kind, Some(WrongKey | NotPermitted))
}

/// Returns true if the media type is that of server-sent events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    const MEDIA: &[u8] = b"text/event-stream";
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begin = media.and_then(|media| media.get(..MEDIA.len()));
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(MEDIA))
}
