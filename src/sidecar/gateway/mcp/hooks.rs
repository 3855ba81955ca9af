//! The places at which requests and lists of tools can be changed on their way.
//!
//! MCP-6: what a caller may call, and under which name, is decided here, before a call is made.

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;

use crate::mcp::message::RpcError;
use crate::mcp::tools::RawTool;

/// The rules for one server's requests. Without any, everything passes as it came.
#[derive(Debug, Default)]
pub(super) struct RequestHooks {}

impl RequestHooks {
    /// Decides on a request, before anything is sent. Returns the name under which the server knows
    /// what is called, if that is another one.
    ///
    /// # Errors  The request goes no further.
    #[expect(clippy::unused_self, reason = "the place of rules to come")]
    pub(super) fn admit(
        &self,
        _head: &Parts,
        _method: &str,
        _name: Option<&str>,
    ) -> Result<Option<String>, RpcError> {
        Ok(None)
    }

    /// Returns the tools that callers see, as they see them.
    #[expect(clippy::unused_self, reason = "the place of rules to come")]
    pub(super) fn shown(&self, tools: &Arc<[RawTool]>) -> Arc<[RawTool]> {
        Arc::clone(tools)
    }

    /// Returns the headers of a request that are passed on to a server over HTTP.
    #[expect(clippy::unused_self, reason = "the place of rules to come")]
    pub(super) fn forwarded(&self, _head: &Parts) -> Option<Arc<HeaderMap>> {
        None
    }
}
