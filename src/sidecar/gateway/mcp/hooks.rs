//! The places at which requests and lists of tools are changed on their way.
//!
//! MCP-6: the tools that a caller may call, and their names, are decided here, before a call is made.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;

use super::endpoint_front::EndpointFront;
use super::tool_table::ReachableTool;
use crate::CallOptions;
use crate::mcp::json_text::JsonText;
use crate::mcp::message::{RpcError, code};
use crate::mcp::tools::RawTool;
use crate::mcp::{McpClient, ToolOutcome};

/// Maximum length of a name in an error; callers choose it.
const MAX_NAME: usize = 128;

/// The rules for one server's requests.
pub(super) struct RequestHooks(Arc<EndpointFront>);

/// A request that may go on.
#[derive(Debug, Clone, Default)]
pub(super) struct AdmittedCall {
    tool: Option<ReachableTool>,
    /// The name under which the server knows the tool, if it is another one.
    pub(super) renamed: Option<String>,
}

impl AdmittedCall {
    /// Applies the table's entry to the options of the call.
    pub(super) fn apply(&self, options: &mut CallOptions) {
        if let Some(tool) = &self.tool {
            tool.apply(options);
        }
    }
}

impl RequestHooks {
    pub(super) fn new(front: Arc<EndpointFront>) -> Self {
        Self(front)
    }

    /// Decides on a request, before anything is sent. `name`: of the tool or prompt.
    ///
    /// # Errors  The request goes no further.
    pub(super) fn admit(&self, method: &str, name: Option<&str>) -> Result<AdmittedCall, RpcError> {
        let Some(name) = name.filter(|_| method == "tools/call") else {
            return Ok(AdmittedCall::default());
        };
        let Some(tool) = self.0.find(name) else {
            // MCP-6: the answer is that of a server without such a tool.
            let name: String = name.chars().take(MAX_NAME).collect();
            let text = format!("unknown tool: {name}");
            return Err(RpcError::new(code::INVALID_PARAMS, text));
        };
        Ok(AdmittedCall {
            renamed: (tool.name != name).then(|| tool.name.clone()),
            tool: Some(tool),
        })
    }

    /// Returns the tools that callers see, as they see them.
    pub(super) fn shown(&self, client: &McpClient, tools: &Arc<[RawTool]>) -> Arc<[RawTool]> {
        self.0.tell_absent(client);
        self.0.shown(tools)
    }

    /// Returns the result of `tools/list` as callers see it; `None` if it stays as it is.
    pub(super) fn filtered(&self, result: &JsonText) -> Option<JsonText> {
        let filtered = self.0.filter(result.as_str())?;
        Some(JsonText::checked(filtered.into()))
    }

    /// Returns the headers of a request that are passed on to a server over HTTP.
    pub(super) fn forwarded(&self, head: &Parts) -> Option<Arc<HeaderMap>> {
        self.0.forwarded(&head.headers)
    }

    /// Counts a call of a tool that has ended, with the name that its caller sees and its duration.
    pub(super) fn count(
        &self,
        client: &McpClient,
        (tool, outcome, duration): (&str, ToolOutcome, Duration),
    ) {
        self.0.count(client, tool, outcome, duration);
    }
}
