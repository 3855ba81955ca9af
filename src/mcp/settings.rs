//! How a server is reached: as a process of ours, or over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Secret;

/// Everything that is set for one server, beside the policy that every dependency has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpSettings {
    /// Where it is.
    pub server: McpServer,
    /// How long it may take from its start to the list of its tools.
    pub start_timeout: Duration,
    /// After so many calls in a row that timed out while it said nothing at all, its process is
    /// killed and replaced, or its connection made anew. `None`: never.
    pub hang_limit: Option<NonZeroU32>,
    /// Lines of its standard error that are kept.
    pub stderr_lines: usize,
    /// The longest message that it may send, in bytes.
    pub max_line: usize,
    /// Tools that may be repeated after they may have been executed, whatever they say of
    /// themselves (rule CALL-7).
    pub idempotent: Vec<String>,
    /// Whether its writes go one at a time where the policy does not say how many. So it is by
    /// default for a process: such servers keep their data in a file.
    pub serial_writes: bool,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpServer {
    /// A process of ours, spoken to over its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its variables, beside the few that every process needs; of ours it gets no others.
        env: BTreeMap<String, Secret>,
        /// The folder that it runs in; ours when it is not given.
        cwd: Option<PathBuf>,
    },
    /// A server somewhere, spoken to over streamable HTTP.
    Http {
        /// Its address.
        url: String,
        /// Headers of every request, such as a key.
        headers: BTreeMap<String, Secret>,
    },
}

/// Without arguments, variables and headers, which may be secrets.
impl fmt::Debug for McpServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio { command, .. } => out
                .debug_struct("Stdio")
                .field("command", command)
                .finish_non_exhaustive(),
            Self::Http { url, .. } => out
                .debug_struct("Http")
                .field("url", url)
                .finish_non_exhaustive(),
        }
    }
}

impl McpSettings {
    /// How long a server may take to start, where nothing else is said.
    pub const START_TIMEOUT: Duration = Duration::from_secs(10);
    /// After how many silent timeouts a process counts as hung, where nothing else is said.
    pub const HANG_LIMIT: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
    /// How many lines of standard error are kept, where nothing else is said.
    pub const STDERR_LINES: usize = 50;
    /// How long a message may be, where nothing else is said: 16 MiB.
    pub const MAX_LINE: usize = 16 << 20;

    /// A process with these arguments.
    #[must_use]
    pub fn stdio<A: Into<String>>(
        command: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let server = McpServer::Stdio {
            command: command.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: None,
        };
        Self::of(server, Self::HANG_LIMIT, true)
    }

    /// A server at this address. Its connection costs little, so it is made anew after each
    /// timeout.
    #[must_use]
    pub fn http(url: impl Into<String>) -> Self {
        let server = McpServer::Http {
            url: url.into(),
            headers: BTreeMap::new(),
        };
        Self::of(server, NonZeroU32::MIN, false)
    }

    fn of(server: McpServer, hang_limit: NonZeroU32, serial_writes: bool) -> Self {
        Self {
            server,
            start_timeout: Self::START_TIMEOUT,
            hang_limit: Some(hang_limit),
            stderr_lines: Self::STDERR_LINES,
            max_line: Self::MAX_LINE,
            idempotent: Vec::new(),
            serial_writes,
        }
    }

    /// Gives a process a variable. Its value is never shown, nor kept of what the server writes.
    /// A server elsewhere has none.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let McpServer::Stdio { env, .. } = &mut self.server {
            env.insert(name.into(), Secret::new(value));
        }
        self
    }

    /// Sets the folder that a process runs in.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        if let McpServer::Stdio { cwd, .. } = &mut self.server {
            *cwd = Some(folder.into());
        }
        self
    }

    /// Sends a header with every request over HTTP. Its value is never shown.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let McpServer::Http { headers, .. } = &mut self.server {
            headers.insert(name.into(), Secret::new(value));
        }
        self
    }

    /// Names tools that may be repeated.
    #[must_use]
    pub fn idempotent<T: Into<String>>(mut self, tools: impl IntoIterator<Item = T>) -> Self {
        self.idempotent = tools.into_iter().map(Into::into).collect();
        self
    }

    /// What must not be seen in anything that the server writes.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let of = match &self.server {
            McpServer::Stdio { env, .. } => env,
            McpServer::Http { headers, .. } => headers,
        };
        of.values().map(Secret::expose)
    }
}
