//! Launch of a server's process, from its program to its handshake, and the reasons for its end.
//!
//! It restarts nothing.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::audience::SessionOwner;
use super::connection::{Connection, Link};
use super::error::McpError;
use super::liveness::{ConnectionEnd, Liveness};
use super::process::{ServerPipes, ServerProcess};
use super::server_state::ServerState;
use super::session::Session;
use super::settings::McpServer;
use super::stderr_tail::StderrTail;
use super::stdio::{read_lines, write_lines};

/// Limit for waiting for a process's exit status after it has closed its output.
const STATUS: Duration = Duration::from_millis(30);
/// Maximum length of the line in which a script names its interpreter.
const MAX_FIRST_LINE: u64 = 256;
/// Limit for reading the rest of the output of a process that has ended: a program that left its
/// group may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A process after its handshake. Dropping it kills the process and all that it has started.
pub(super) struct LaunchedServer {
    pub(super) process: ServerProcess,
    pub(super) session: Arc<Session>,
    pub(super) liveness: Arc<Liveness>,
}

/// Names the program that the system did not find; arguments that stand in its place are left out.
fn which_is_missing(server: &McpServer, error: &std::io::Error) -> String {
    let McpServer::Stdio { command, cwd, .. } = server else {
        return String::new();
    };
    if error.kind() != std::io::ErrorKind::NotFound {
        return String::new();
    }
    if let Some(folder) = cwd.as_ref().filter(|folder| !folder.is_dir()) {
        return format!("; there is no folder {}, its cwd", folder.display());
    }
    let name = command.split(' ').next().unwrap_or_default();
    let is_path = command.contains('/');
    if let Some(file) = program_file(command, cwd.as_deref()) {
        return without_interpreter(command, &file);
    }
    match (name == command, is_path) {
        (true, false) => format!("; PATH of this process has no {name:?}"),
        (true, true) => format!("; there is no file {name:?}"),
        // EDGE-8: the arguments were given as a part of the name.
        (false, _) => "; its command has blanks, and arguments belong into args".to_owned(),
    }
}

/// Returns the file of a program, as the system looks for it.
fn program_file(command: &str, cwd: Option<&Path>) -> Option<PathBuf> {
    let places = match command.contains('/') {
        true => vec![cwd.map_or_else(|| command.into(), |cwd| cwd.join(command))],
        false => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|folder| folder.join(command))
                .collect()
        }
    };
    places.into_iter().find(|place| place.is_file())
}

/// EDGE-8: the system says the same of a script without its interpreter as of a missing file.
fn without_interpreter(command: &str, file: &Path) -> String {
    let mut head = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FIRST_LINE).read_to_end(&mut head));
    let head = String::from_utf8_lossy(&head);
    let line = head
        .split('\n')
        .next()
        .and_then(|line| line.strip_prefix("#!"));
    // The system parts the line at these alone: a CR belongs to the interpreter's name.
    let mut words = line.unwrap_or_default().split([' ', '\t']);
    let interpreter = words.find(|word| !word.is_empty());
    match (read, interpreter) {
        (Ok(_), Some(own)) if own.ends_with('\r') => {
            format!("; the first line of {command:?} ends in CR LF: save it with LF line ends")
        }
        (Ok(_), Some(own)) if !Path::new(own).exists() => {
            format!("; its interpreter {own:?} is missing, and {command:?} is there")
        }
        _ => format!("; {command:?} is there, and what the system needs to run it is missing"),
    }
}

impl LaunchedServer {
    /// Starts a process and performs the handshake. `owner`: the session that it serves alone.
    ///
    /// # Errors  [`McpError`]; a started process is killed.
    pub(super) async fn launch(
        server_state: &Arc<ServerState>,
        stderr_tail: &Arc<StderrTail>,
        owner: Option<&Arc<dyn SessionOwner>>,
    ) -> Result<Self, McpError> {
        let settings = &server_state.settings;
        let failed = |reason: String| McpError::StartFailed { reason };
        let started = ServerProcess::start(&settings.server, stderr_tail);
        let (process, ServerPipes { stdin, stdout }) = started.map_err(|error| {
            // The system's error does not contain the arguments.
            let which = which_is_missing(&settings.server, &error);
            failed(format!("its program cannot be started: {error}{which}"))
        })?;
        let liveness = Arc::new(Liveness::new(settings.hang_limit));
        let link = Link::Pipe(Mutex::new(Some(write_lines(stdin, Arc::clone(&liveness)))));
        let connection = Connection::new(link, Arc::clone(&liveness), server_state, owner);
        // It ends with the output of the process.
        drop(tokio::spawn(read_lines(stdout, Arc::clone(&connection))));
        let opening = Session::open(connection, server_state);
        let opened = match timeout(settings.start_timeout, opening).await {
            Ok(opened) => opened.map_err(McpError::at_start),
            Err(_) => {
                // MCP-3: it may wait for ever for the other handshake.
                server_state.remember_handshake(owner.is_some(), None);
                Err(failed(settings.late_start()))
            }
        };
        match opened {
            Ok(session) => Ok(Self {
                process,
                session: Arc::new(session),
                liveness,
            }),
            Err(error) => Err(with_end(error, process).await),
        }
    }
}

/// Waits until the connection or the process has ended, and returns the reason.
pub(super) async fn end_of(process: &ServerProcess, liveness: &Liveness) -> String {
    let end = tokio::select! {
        end = liveness.ended() => end,
        _ = process.ended() => ConnectionEnd::Closed,
    };
    let what = match (end, liveness.violation()) {
        (ConnectionEnd::Hung, _) => {
            process.kill();
            return "it hung: it did not answer when asked for a sign of life".to_owned();
        }
        (_, Some(violation)) => {
            // Its remaining output is not awaited: calls wait for the next incarnation.
            process.kill();
            return format!("it broke the protocol: {violation}");
        }
        _ => match timeout(STATUS, process.ended()).await {
            Ok(status) => status,
            Err(_) => {
                process.kill();
                let side = match liveness.has_closed_input() {
                    true => "input",
                    false => "output",
                };
                format!("it closed its {side}")
            }
        },
    };
    // MCP-3: its last answer may still be in the pipe, or being read.
    let _ = timeout(LAST_OUTPUT, liveness.until_read()).await;
    with_words(what, process.last_words().await)
}

fn with_words(what: String, last: Option<String>) -> String {
    match last {
        Some(last) => format!("{what}; its last line on standard error: {last}"),
        None => what,
    }
}

/// Adds the exit status and the last output of a process that did not start.
async fn with_end(error: McpError, process: ServerProcess) -> McpError {
    let status = timeout(STATUS, process.ended()).await;
    process.kill();
    let McpError::StartFailed { reason } = error else {
        return error;
    };
    let reason = match status {
        Ok(status) => format!("{reason}: {status}"),
        Err(_) => reason,
    };
    McpError::StartFailed {
        reason: with_words(reason, process.last_words().await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_8_a_script_that_cannot_be_run_is_told_what_its_first_line_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        let here = folder.path().join("here");
        std::fs::write(&here, "").unwrap();
        let here = here.display().to_string();
        for (line, expected) in [
            (format!("#!{here}\r\n"), "ends in CR LF"),
            (format!("#! {here}\r\n"), "ends in CR LF"),
            ("#!/no/such/program\r\n".to_owned(), "ends in CR LF"),
            (
                "#!/no/such/program -x\n".to_owned(),
                "\"/no/such/program\" is missing",
            ),
            // The interpreter itself cannot be run: there is no CR to blame.
            (format!("#!{here}\n"), "what the system needs to run it"),
            (
                format!("#!{here} -x\r\n"),
                "what the system needs to run it",
            ),
            ("#!\n".to_owned(), "what the system needs to run it"),
            ("\u{7f}ELF".to_owned(), "what the system needs to run it"),
        ] {
            std::fs::write(&file, &line).unwrap();
            let told = without_interpreter("script", &file);
            assert!(told.contains(expected), "{line:?}: {told}");
        }
    }
}
