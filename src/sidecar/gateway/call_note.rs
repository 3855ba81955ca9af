//! A note on a response: which request of the protocol it answers, for spans and the access log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::AnswerSource;
use crate::lock::LockExt as _;

/// Maximum length of a name in a note; callers choose it.
const MAX_NAME: usize = 128;

/// Request of a caller of an MCP endpoint.
#[derive(Debug, Clone)]
pub(crate) struct CallNote {
    /// The dependency, for spans.
    #[cfg_attr(not(feature = "otel"), allow(dead_code))]
    pub(crate) dependency: String,
    /// The method.
    pub(crate) method: String,
    /// Name of the tool, as the caller sees it, for a call of one.
    pub(crate) tool: Option<String>,
    pub(crate) end: Arc<CallEnd>,
}

/// The source of an answer and the attempts at it, as far as they are known: the head of an answer that
/// is a stream of events goes before them.
#[derive(Debug, Default)]
pub(crate) struct CallEnd {
    pub(crate) attempts: Arc<AtomicU64>,
    /// `None` for an answer of the gateway's own.
    source: Mutex<Option<AnswerSource>>,
}

impl CallEnd {
    /// Notes the source of the answer; `None` if it is the gateway's own.
    pub(crate) fn answered_by(&self, source: Option<AnswerSource>) {
        *self.source.acquire() = source;
    }

    /// Returns the source and the number of attempts, as the headers of other answers have them.
    pub(crate) fn signs(&self) -> (String, u64) {
        let source = self.source.acquire();
        let source = source.as_ref().map(AnswerSource::to_string);
        let attempts = self.attempts.load(Ordering::Relaxed);
        (source.unwrap_or_else(|| "gateway".to_owned()), attempts)
    }
}

impl CallNote {
    /// Creates a note. `name`: what is called.
    pub(crate) fn new(dependency: &str, method: &str, name: Option<&str>) -> Self {
        let cut = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
        Self {
            dependency: dependency.to_owned(),
            method: cut(method),
            tool: name.filter(|_| method == "tools/call").map(cut),
            end: Arc::default(),
        }
    }
}
