//! Verdicts of a dialect for the runtime, and the media type of its streams.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};

use breakerbox_policy::{Class, Symptom};

use crate::Verdict;
use crate::config::ModelKeys;
use crate::model::{ErrorScope, ModelErrorKind, ModelVerdict};

/// The owner of the key that a provider is asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyOwner {
    /// The key is ours, for all callers.
    Gateway,
    /// Each caller has a key of its own. `has_own_pause`: its header tells its calls from those of
    /// others (`keys_by = "header"`).
    Caller { has_own_pause: bool },
}

impl KeyOwner {
    /// Returns the owner. `has_key`: the key is ours.
    pub(crate) fn of(has_key: bool, keys_by: ModelKeys) -> Self {
        let has_own_pause = keys_by == ModelKeys::Header;
        match has_key {
            true => Self::Gateway,
            false => Self::Caller { has_own_pause },
        }
    }
}

/// Returns the verdict for the runtime.
pub(super) fn verdict_of(judged: &ModelVerdict, owner: KeyOwner) -> Verdict {
    let verdict = judged.verdict();
    if is_affair_of_caller(judged, owner) {
        // FBK-2: the caller's own key and credit are its own affair.
        return Verdict::from(Class::Rejected)
            .symptom(Symptom::Status(judged.status))
            .for_caller();
    }
    match owner {
        // LIM-1: a limit of one caller's key keeps no other caller waiting.
        KeyOwner::Caller { has_own_pause } if has_own_pause => verdict.for_own_key(),
        KeyOwner::Caller { .. } => verdict.without_pause(),
        // LLM-18: a used-up quota and a wrong key hold for every model.
        KeyOwner::Gateway if judged.scope() == ErrorScope::Dependency => verdict.for_all_keys(),
        KeyOwner::Gateway => verdict,
    }
}

/// Returns true if an error speaks of this caller's own key, or of its credit, and concerns no other
/// call.
pub(super) fn is_affair_of_caller(judged: &ModelVerdict, owner: KeyOwner) -> bool {
    use ModelErrorKind::{NotPermitted, QuotaUsedUp, WrongKey};
    let KeyOwner::Caller { has_own_pause } = owner else {
        return false;
    };
    match judged.kind {
        Some(WrongKey | NotPermitted) => true,
        // LLM-4: where the caller's calls can be told from those of others, they pause.
        Some(QuotaUsedUp) => !has_own_pause,
        _ => false,
    }
}

/// Returns true if the media type is that of server-sent events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    const MEDIA: &[u8] = b"text/event-stream";
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let begin = media.and_then(|media| media.get(..MEDIA.len()));
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(MEDIA))
}
