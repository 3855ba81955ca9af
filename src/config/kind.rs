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
    /// A loopback server that `serve` or the demo starts itself.
    Simulated,
}
