//! A note on a response: which request of the protocol it answers, for spans and the access log.

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
}

impl CallNote {
    /// Creates a note. `name`: what is called.
    pub(crate) fn new(dependency: &str, method: &str, name: Option<&str>) -> Self {
        let cut = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
        Self {
            dependency: dependency.to_owned(),
            method: cut(method),
            tool: name.filter(|_| method == "tools/call").map(cut),
        }
    }
}
