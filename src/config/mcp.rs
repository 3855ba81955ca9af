//! Settings of an MCP server: the start of its process, or the headers of its requests.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::DependencyKind;
use super::masking::show_arguments;
use super::secret::Secret;
use super::section::Section;
use super::value_type::{TICK, YEAR, bytes, count, duration, integer, one_of, path, string};

/// Settings of an MCP server, beside its address.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct McpConfig {
    /// The program, for [`DependencyKind::McpStdio`].
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment variables.
    pub env: BTreeMap<String, Secret>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// Headers of every request, for [`DependencyKind::McpHttp`].
    pub headers: BTreeMap<String, Secret>,
    /// Time limit for the start.
    pub start_timeout: Duration,
    /// Number of unanswered questions for a sign of life after which the server is replaced.
    pub hang_limit: Option<NonZeroU32>,
    /// Number of lines kept of its standard error.
    pub stderr_lines: usize,
    /// Maximum size of a message, in bytes.
    pub max_line: u64,
    /// Time limit for the answers of a call's user, to all questions of the server together.
    pub question_timeout: Duration,
    /// Sessions of its callers: shared or not.
    pub sessions: CallerSessions,
}

/// Sessions of callers at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerSessions {
    /// All callers share one process, or one session at the server.
    Shared,
    /// Each session of a caller has one of its own.
    #[non_exhaustive]
    PerCaller {
        /// Maximum number of sessions.
        max: NonZeroU32,
        /// Time without a call after which a session ends.
        idle: Duration,
    },
}

const STDIO_ONLY: [&str; 5] = ["command", "args", "env", "cwd", "stderr_lines"];
const HTTP_ONLY: [&str; 1] = ["headers"];
const BOTH: [&str; 5] = [
    "start_timeout",
    "hang_limit",
    "max_line",
    "question_timeout",
    "sessions",
];
const PER_CALLER: [&str; 2] = ["max_sessions", "session_idle"];

/// Reads the settings. Returns `None` for a dependency of another kind, which must have none of
/// these keys.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    headers: &BTreeMap<String, Secret>,
) -> Option<McpConfig> {
    let text = || string("a text", |_| true);
    let program = path("the name or the path of a program", |name| !name.is_empty());
    let folder = path("the path of a folder", |path| !path.is_empty());
    let span = duration(TICK..=YEAR);
    let times = count(1000).or_off();
    let lines = integer(0..=10_000_i64);
    let size = bytes("\"16MiB\", from 1KB to 1GB", 1000..=1_000_000_000);
    let program = program.shown_by(show_arguments);
    let command = section.get("command", &program);
    let arguments = text().list().shown_by(show_arguments);
    let args = section.get("args", &arguments);
    let cwd = section.get("cwd", &folder);
    let env = section.secrets("env", "a table of texts, such as { API_KEY = \"…\" }");
    let start_timeout = section.get("start_timeout", &span);
    let hang_limit = section.get("hang_limit", &times);
    let stderr_lines = section.get("stderr_lines", &lines);
    let max_line = section.get("max_line", &size);
    let question_timeout = section.get("question_timeout", &span);
    let sessions = read_sessions(section, kind);
    let is_stdio = kind == Some(DependencyKind::McpStdio);
    let is_http = kind == Some(DependencyKind::McpHttp);
    let alien = STDIO_ONLY.iter().filter(|_| !is_stdio);
    let sends = is_http || kind.is_some_and(DependencyKind::is_http);
    let alien = alien.chain(HTTP_ONLY.iter().filter(|_| !sends));
    for key in alien.chain(BOTH.iter().filter(|_| !is_stdio && !is_http)) {
        if section.has(key) {
            let kinds = if STDIO_ONLY.contains(key) {
                "kind = \"mcp_stdio\""
            } else if HTTP_ONLY.contains(key) {
                "kind = \"http\", \"model\" and \"mcp_http\""
            } else {
                "kind = \"mcp_stdio\" and \"mcp_http\""
            };
            let reason = format!("it applies to dependencies of another kind, {kinds}");
            section.conflict(key, reason, "to leave it out");
        }
    }
    if !is_stdio && !is_http {
        return None;
    }
    if is_stdio && !section.has("command") {
        let needs = match section.has("url") {
            true => {
                "kind = \"mcp_stdio\" needs it; for a server with a url, did you mean kind = \"mcp_http\"?"
            }
            false => "kind = \"mcp_stdio\" needs it",
        };
        section.conflict("command", needs, "the name or the path of a program");
    }
    let limit = if is_stdio { THREE } else { NonZeroU32::MIN };
    if is_stdio {
        section.default_to("args", &text().list(), args.clone(), Vec::new());
        section.default_to("stderr_lines", &lines, stderr_lines, STDERR_LINES);
    }
    Some(McpConfig {
        command: command.unwrap_or_default(),
        args: args.unwrap_or_default(),
        env,
        cwd: cwd.map(PathBuf::from),
        headers: headers.clone(),
        start_timeout: section.default_to("start_timeout", &span, start_timeout, MINUTE),
        hang_limit: section.default_to("hang_limit", &times, hang_limit, Some(limit)),
        stderr_lines: usize::try_from(stderr_lines.unwrap_or(STDERR_LINES)).unwrap_or(0),
        max_line: section.default_to("max_line", &size, max_line, 16 << 20),
        question_timeout: section.default_to(
            "question_timeout",
            &span,
            question_timeout,
            FIVE_MINUTES,
        ),
        sessions,
    })
}

/// Reads `sessions` and its limits.
fn read_sessions(section: &mut Section<'_>, kind: Option<DependencyKind>) -> CallerSessions {
    const WORDS: &[(&str, bool)] = &[("shared", false), ("per_caller", true)];
    let word = one_of(WORDS);
    let number = count(1000);
    let span = duration(TICK..=YEAR);
    let own = section.get("sessions", &word);
    let max = section.get("max_sessions", &number);
    let idle = section.get("session_idle", &span);
    if !kind.is_some_and(|kind| kind != DependencyKind::McpGroup && kind.is_mcp()) {
        for key in PER_CALLER.iter().filter(|key| section.has(key)) {
            let reason = "it applies to dependencies of another kind";
            section.conflict(key, reason, "to leave it out");
        }
        return CallerSessions::Shared;
    }
    if !section.default_to("sessions", &word, own, false) {
        let is_meant = !section.is_bad("sessions");
        for key in PER_CALLER.iter().filter(|key| is_meant && section.has(key)) {
            let reason = "it applies to sessions = \"per_caller\"";
            section.conflict(key, reason, "to leave it out");
        }
        return CallerSessions::Shared;
    }
    CallerSessions::PerCaller {
        max: section.default_to("max_sessions", &number, max, SIXTEEN),
        idle: section.default_to("session_idle", &span, idle, HALF_AN_HOUR),
    }
}

/// Reports settings that cannot go together with a session for each caller.
pub(super) fn check_sessions(section: &Section<'_>, own: &McpConfig, workers: NonZeroU32) {
    let is_per_caller = own.sessions != CallerSessions::Shared;
    if is_per_caller && workers > NonZeroU32::MIN {
        // The calls of a session would reach several processes.
        let reason = "sessions = \"per_caller\" needs one worker";
        section.conflict(
            "workers.count",
            reason,
            "1; a session has a process of its own",
        );
    }
}

const THREE: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
const SIXTEEN: NonZeroU32 = NonZeroU32::new(16).expect("sixteen is not zero");
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
const STDERR_LINES: i64 = 50;
const FIVE_MINUTES: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);
