//! Settings of an MCP server: a child process, or a remote server over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use breakerbox_policy::RoundedDuration;

use crate::config::{CallerSessions, DependencyConfig, DependencyKind, Secret};

/// Settings of one server, besides the policy that every dependency has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpSettings {
    /// The server.
    pub server: McpServer,
    /// Limit for the time from its start to the list of its tools.
    pub start_timeout: Duration,
    /// Number of questions for a sign of life that stay unanswered, after which its process is
    /// killed and replaced, or its connection made anew; two are asked at least. `None`: it is never
    /// asked.
    pub hang_limit: Option<NonZeroU32>,
    /// Number of lines of its standard error that are kept.
    pub stderr_lines: usize,
    /// Maximum size of a message, either way, in bytes.
    pub max_line: usize,
    /// Limit for the time in which one call waits for its user, all questions of the server together.
    pub question_timeout: Duration,
    /// Tools that may be repeated after they may have been executed, regardless of their own hints
    /// (rule CALL-7).
    pub idempotent: Vec<String>,
    /// True if its writes go one at a time unless the policy sets a limit. It is the default for a
    /// process: such servers keep their data in a file.
    pub serial_writes: bool,
    /// True if each session of a caller of the gateway has a process, or a session at the server, of
    /// its own. Callers without a session share one.
    pub per_caller: bool,
}

/// Location of a server.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpServer {
    /// A child process, reached over its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// The arguments.
        args: Vec<String>,
        /// Its environment variables. Of ours it inherits only the few that every process needs.
        env: BTreeMap<String, Secret>,
        /// The working directory; ours if not given.
        cwd: Option<PathBuf>,
    },
    /// A remote server, reached over streamable HTTP.
    Http {
        /// The URL.
        url: String,
        /// Headers of every request, such as a key.
        headers: BTreeMap<String, Secret>,
    },
}

/// Omits arguments, variables and headers, which may be secrets.
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
    /// Default limit for the start of a server.
    pub const START_TIMEOUT: Duration = Duration::from_secs(60);
    /// Default number of unanswered questions after which a process counts as hung.
    pub const HANG_LIMIT: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
    /// Default number of lines of standard error that are kept.
    pub const STDERR_LINES: usize = 50;
    /// Default limit for the questions of one call.
    pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(300);
    /// Default maximum size of a message: 16 MiB.
    pub const MAX_LINE: usize = 16 << 20;

    /// Creates settings for a process with these arguments.
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

    /// Creates settings for a server at this URL. Its connection is cheap, so it is made anew once two
    /// questions for a sign of life stay unanswered.
    #[must_use]
    pub fn http(url: impl Into<String>) -> Self {
        let server = McpServer::Http {
            url: url.into(),
            headers: BTreeMap::new(),
        };
        Self::of(server, NonZeroU32::MIN, false)
    }

    /// Returns the settings of a configured dependency; `None` if it is of another kind.
    #[must_use]
    pub fn of_config(config: &DependencyConfig) -> Option<Self> {
        let own = config.mcp.as_ref()?;
        let server = match config.kind? {
            DependencyKind::McpStdio => McpServer::Stdio {
                command: own.command.clone(),
                args: own.args.clone(),
                env: own.env.clone(),
                cwd: own.cwd.clone(),
            },
            DependencyKind::McpHttp => McpServer::Http {
                url: config.url.clone()?,
                headers: own.headers.clone(),
            },
            _ => return None,
        };
        Some(Self {
            server,
            start_timeout: own.start_timeout,
            hang_limit: own.hang_limit,
            stderr_lines: own.stderr_lines,
            max_line: usize::try_from(own.max_line).unwrap_or(usize::MAX),
            question_timeout: own.question_timeout,
            idempotent: config.idempotent.clone(),
            // The configured policy decides, even if it sets no limit.
            serial_writes: false,
            per_caller: matches!(own.sessions, CallerSessions::PerCaller { .. }),
        })
    }

    /// Returns the reason of a start that took too long.
    pub(super) fn late_start(&self) -> String {
        // EDGE-8: the limit is named, so that it can be found and changed.
        let limit = RoundedDuration(self.start_timeout);
        format!("no handshake within {limit} (start_timeout)")
    }

    fn of(server: McpServer, hang_limit: NonZeroU32, serial_writes: bool) -> Self {
        Self {
            server,
            start_timeout: Self::START_TIMEOUT,
            hang_limit: Some(hang_limit),
            stderr_lines: Self::STDERR_LINES,
            max_line: Self::MAX_LINE,
            question_timeout: Self::QUESTION_TIMEOUT,
            idempotent: Vec::new(),
            serial_writes,
            per_caller: false,
        }
    }

    /// Sets an environment variable of a process. Its value is never shown, and is masked in the
    /// kept output of the server. A remote server has none.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let McpServer::Stdio { env, .. } = &mut self.server {
            env.insert(name.into(), Secret::new(value));
        }
        self
    }

    /// Sets the working directory of a process.
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

    /// Sets the tools that may be repeated.
    #[must_use]
    pub fn idempotent<T: Into<String>>(mut self, tools: impl IntoIterator<Item = T>) -> Self {
        self.idempotent = tools.into_iter().map(Into::into).collect();
        self
    }

    /// Returns the secrets to mask in the output of the server.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let of = match &self.server {
            McpServer::Stdio { env, .. } => env,
            McpServer::Http { headers, .. } => headers,
        };
        of.values().map(Secret::expose)
    }
}
