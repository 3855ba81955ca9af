//! The kinds of dependencies that the sidecar has a client for.

/// Protocol of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependencyKind {
    /// HTTP, at its `url`.
    Http,
    /// A Model Context Protocol server on standard input and output.
    McpStdio,
    /// A Model Context Protocol server over streamable HTTP, at its `url`.
    McpHttp,
    /// Several Model Context Protocol servers behind one endpoint.
    McpGroup,
    /// A language model behind an HTTP API, at its `url`.
    Model,
    /// Several language models or HTTP services, of which one answers each call.
    Pool,
    /// A loopback server that `serve` or the demo starts itself.
    Simulated,
}

impl DependencyKind {
    /// Returns true for a Model Context Protocol server.
    #[must_use]
    pub const fn is_mcp(self) -> bool {
        matches!(self, Self::McpStdio | Self::McpHttp)
    }

    /// Returns true for a dependency that gets its requests passed on over HTTP.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Model)
    }
}
