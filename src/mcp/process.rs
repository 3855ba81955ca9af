//! Process group of a server: the process and all that it starts, signalled, killed and reaped as
//! a whole.
//!
//! It never decides anything: a worker's value owns it, and dropping the value kills it.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;
#[cfg(all(target_os = "linux", feature = "cli"))]
use tokio::time::sleep;
use tokio::time::timeout;

use super::settings::McpServer;
use super::stderr_tail::{StderrTail, listen};

/// Environment variables that a process inherits, to find its programs and files. All others may be
/// secrets of ours or of other servers.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ", // and on Windows
    "APPDATA",
    "COMSPEC",
    "LOCALAPPDATA",
    "PATHEXT",
    "PROGRAMFILES",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERNAME",
    "USERPROFILE",
];
/// Time for a server to exit after its connection was closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// Limit for waiting for the end of its standard error.
const LAST_WORDS: Duration = Duration::from_millis(30);

/// A running server. Dropping it kills the process and all that it has started, at once.
#[derive(Debug)]
pub(super) struct ServerProcess {
    group: ProcessGroup,
    ended: watch::Receiver<Option<ExitStatus>>,
    stderr_tail: Arc<StderrTail>,
    listener: AbortHandle,
    /// True once its standard error has ended.
    silent: watch::Receiver<bool>,
}

/// Our ends of its pipes.
pub(super) struct ServerPipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

impl ServerProcess {
    /// Starts the process.
    ///
    /// # Errors  The program cannot be run.
    /// # Panics  Outside of a tokio runtime.
    pub(super) fn start(
        server: &McpServer,
        stderr_tail: &Arc<StderrTail>,
    ) -> io::Result<(Self, ServerPipes)> {
        let McpServer::Stdio {
            command,
            args,
            env,
            cwd,
        } = server
        else {
            let reason = "a remote server has no process here";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        };
        let mut own = Command::new(command);
        own.args(args).env_clear();
        own.envs(INHERITED.iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some((name, value))
        }));
        own.envs(env.iter().map(|(name, value)| (name, value.expose())));
        if let Some(folder) = cwd {
            own.current_dir(folder);
        }
        own.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut own = CommandWrap::from(own);
        own.wrap(KillOnDrop);
        lead_a_group(&mut own);
        let mut child = own.spawn()?;
        let pipes = take_pipes(&mut *child);
        let group = ProcessGroup::of(&*child);
        let (told, ended) = watch::channel(None);
        // The task ends with the process. If the task is dropped, the process is killed.
        drop(tokio::spawn(keep(child, group, told)));
        let (pipes, stderr) = pipes?;
        stderr_tail.turn_over();
        let own_words = Arc::clone(stderr_tail);
        let (fell_silent, silent) = watch::channel(false);
        let listener = tokio::spawn(async move {
            listen(stderr, &own_words).await;
            fell_silent.send_replace(true);
        });
        let process = Self {
            group,
            ended,
            stderr_tail: Arc::clone(stderr_tail),
            listener: listener.abort_handle(),
            silent,
        };
        Ok((process, pipes))
    }

    /// Kills the process and all that it has started. It is gone when [`ServerProcess::ended`] returns.
    pub(super) fn kill(&self) {
        if self.ended.borrow().is_none() {
            self.group.signal(StopSteps::Kill);
        }
    }

    /// Waits for the end of the process, and returns a description of it.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let status = match ended.wait_for(Option::is_some).await {
            Ok(status) => *status,
            Err(_) => None,
        };
        match status {
            Some(status) => format!("its process ended with {status}"),
            None => "its process is gone".to_owned(),
        }
    }

    /// Waits for the process to exit after its connection was closed. If it does not exit, sends
    /// SIGTERM, then SIGKILL.
    pub(super) async fn stop(&self) {
        for next in [StopSteps::Terminate, StopSteps::Kill] {
            if timeout(GRACE, self.ended()).await.is_ok() {
                return;
            }
            if self.ended.borrow().is_none() {
                self.group.signal(next);
            }
        }
        self.ended().await;
    }

    /// Returns the last line of its standard error, once it has ended.
    pub(super) async fn last_words(&self) -> Option<String> {
        let mut silent = self.silent.clone();
        // Wait for the rest in the pipe, with a limit: a grandchild may hold it open for ever.
        let _ = timeout(LAST_WORDS, silent.wait_for(|silent| *silent)).await;
        self.stderr_tail.last()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        self.listener.abort();
    }
}

/// Makes this process a child subreaper: it adopts the orphans of its children, and can reap them.
///
/// Where PID 1 of a system or a container reaps nothing, the processes that a server has started
/// would stay as zombies. `breakerbox serve` calls it. It applies to every child of the program,
/// permanently: a program that starts other processes has to reap their orphans.
///
/// # Errors  The system does not allow it.
#[cfg(all(target_os = "linux", feature = "cli"))]
pub(crate) fn adopt_orphans() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Reaps every child of this process, so that none is left as a zombie when it ends.
///
/// These are children that were killed while their threads were ending, and adopted orphans. Call
/// it last, as `breakerbox serve` does: it reaps every child, so other waits on a child fail.
///
/// # Units   `limit`: maximum wait for children that do not end.
#[cfg(all(target_os = "linux", feature = "cli"))]
pub(crate) async fn reap_all(limit: Duration) {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let reaping = async {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(5)).await,
                Ok(_) => {}
                // There is no child.
                Err(_) => return,
            }
        }
    };
    if timeout(limit, reaping).await.is_err() {
        tracing::warn!("a process that a server started is still running");
    }
}

/// Waits for a process, kills the rest of its group, and reaps it.
async fn keep(
    mut child: Box<dyn ChildWrapper>,
    group: ProcessGroup,
    told: watch::Sender<Option<ExitStatus>>,
) {
    let status = child.inner_mut().wait().await;
    group.signal(StopSteps::Kill);
    told.send_replace(status.ok());
    if let Err(error) = child.wait().await {
        tracing::debug!(%error, "an ended process cannot be reaped");
    }
}

fn take_pipes(child: &mut dyn ChildWrapper) -> io::Result<(ServerPipes, ChildStderr)> {
    let missing = || io::Error::other("a pipe to it is missing");
    let stdin = child.stdin().take().ok_or_else(missing)?;
    let stdout = child.stdout().take().ok_or_else(missing)?;
    let stderr = child.stderr().take().ok_or_else(missing)?;
    Ok((ServerPipes { stdin, stdout }, stderr))
}

/// Steps to stop a process.
#[derive(Debug, Clone, Copy)]
enum StopSteps {
    Terminate,
    Kill,
}

#[cfg(unix)]
fn lead_a_group(command: &mut CommandWrap) {
    command.wrap(process_wrap::tokio::ProcessGroup::leader());
}

#[cfg(not(unix))]
fn lead_a_group(_: &mut CommandWrap) {}

/// Process group: the process and all that it has started.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
struct ProcessGroup(Option<nix::unistd::Pid>);

#[cfg(unix)]
impl ProcessGroup {
    fn of(child: &dyn ChildWrapper) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.map(nix::unistd::Pid::from_raw))
    }

    fn signal(self, stop: StopSteps) {
        use nix::sys::signal::{Signal, killpg};
        let signal = match stop {
            StopSteps::Terminate => Signal::SIGTERM,
            StopSteps::Kill => Signal::SIGKILL,
        };
        if let Some(group) = self.0 {
            // It may be gone already: then there is nothing to do.
            let _ = killpg(group, signal);
        }
    }
}

/// No-op on systems without process groups; a drop kills the process itself.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy)]
struct ProcessGroup;

#[cfg(not(unix))]
impl ProcessGroup {
    fn of(_: &dyn ChildWrapper) -> Self {
        Self
    }

    fn signal(self, _: StopSteps) {}
}
