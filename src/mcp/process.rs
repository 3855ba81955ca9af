//! A server's process and all that it starts: one group, which is signalled, killed and reaped as
//! a whole.
//!
//! It decides nothing: a worker's value owns one, and it dies with it.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::settings::McpServer;
use super::words::{Words, listen};

/// The variables of ours that a process needs to find its programs and its files. All others may
/// be secrets of ours or of other servers.
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
/// How long a server has to end by itself once nobody speaks to it, and again after it was asked.
const GRACE: Duration = Duration::from_secs(1);
/// How long the end of what it says is waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A running server. Dropped, it is killed at once, with all that it has started.
#[derive(Debug)]
pub(super) struct Process {
    group: Group,
    ended: watch::Receiver<Option<ExitStatus>>,
    words: Arc<Words>,
    listener: AbortHandle,
    /// Set when there is nothing more to hear.
    silent: watch::Receiver<bool>,
}

/// The ends of its pipes.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors  The program cannot be run.
    /// # Panics  Outside of a tokio runtime.
    pub(super) fn start(server: &McpServer, words: &Arc<Words>) -> io::Result<(Self, Pipes)> {
        let McpServer::Stdio {
            command,
            args,
            env,
            cwd,
        } = server
        else {
            let reason = "a server elsewhere is no process of ours";
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
        let group = Group::of(&*child);
        let (told, ended) = watch::channel(None);
        // It ends with the process, which is killed when nobody waits for it any more.
        drop(tokio::spawn(keep(child, group, told)));
        let (pipes, stderr) = pipes?;
        words.turn_over();
        let own_words = Arc::clone(words);
        let (fell_silent, silent) = watch::channel(false);
        let listener = tokio::spawn(async move {
            listen(stderr, &own_words).await;
            fell_silent.send_replace(true);
        });
        let process = Self {
            group,
            ended,
            words: Arc::clone(words),
            listener: listener.abort_handle(),
            silent,
        };
        Ok((process, pipes))
    }

    /// Kills it, and all that it has started. It is gone when [`Process::ended`] says so.
    pub(super) fn kill(&self) {
        if self.ended.borrow().is_none() {
            self.group.signal(Stop::Kill);
        }
    }

    /// Waits for its end, and tells it in words.
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

    /// Waits for its end once nobody speaks to it any more; one that does not end is asked to, and
    /// killed in the end.
    pub(super) async fn stop(&self) {
        for next in [Stop::Terminate, Stop::Kill] {
            if timeout(GRACE, self.ended()).await.is_ok() {
                return;
            }
            if self.ended.borrow().is_none() {
                self.group.signal(next);
            }
        }
        self.ended().await;
    }

    /// The last line that it said, once it has ended.
    pub(super) async fn last_words(&self) -> Option<String> {
        let mut silent = self.silent.clone();
        // What is still in its pipe; a child of its child may hold that open for ever.
        let _ = timeout(LAST_WORDS, silent.wait_for(|silent| *silent)).await;
        self.words.last()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.listener.abort();
    }
}

/// Waits for a process, ends what it left behind, and leaves no zombie.
async fn keep(
    mut child: Box<dyn ChildWrapper>,
    group: Group,
    told: watch::Sender<Option<ExitStatus>>,
) {
    let status = child.inner_mut().wait().await;
    group.signal(Stop::Kill);
    told.send_replace(status.ok());
    if let Err(error) = child.wait().await {
        tracing::debug!(%error, "a process that has ended cannot be waited for");
    }
}

fn take_pipes(child: &mut dyn ChildWrapper) -> io::Result<(Pipes, ChildStderr)> {
    let missing = || io::Error::other("a pipe to it is missing");
    let stdin = child.stdin().take().ok_or_else(missing)?;
    let stdout = child.stdout().take().ok_or_else(missing)?;
    let stderr = child.stderr().take().ok_or_else(missing)?;
    Ok((Pipes { stdin, stdout }, stderr))
}

/// How a process is made to end.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Terminate,
    Kill,
}

#[cfg(unix)]
fn lead_a_group(command: &mut CommandWrap) {
    command.wrap(process_wrap::tokio::ProcessGroup::leader());
}

#[cfg(not(unix))]
fn lead_a_group(_: &mut CommandWrap) {}

/// The process and all that it has started.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
struct Group(Option<nix::unistd::Pid>);

#[cfg(unix)]
impl Group {
    fn of(child: &dyn ChildWrapper) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.map(nix::unistd::Pid::from_raw))
    }

    fn signal(self, stop: Stop) {
        use nix::sys::signal::{Signal, killpg};
        let signal = match stop {
            Stop::Terminate => Signal::SIGTERM,
            Stop::Kill => Signal::SIGKILL,
        };
        if let Some(group) = self.0 {
            // It may be gone already: then there is nothing to do.
            let _ = killpg(group, signal);
        }
    }
}

/// Elsewhere there are no groups; the process itself is killed when it is dropped.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy)]
struct Group;

#[cfg(not(unix))]
impl Group {
    fn of(_: &dyn ChildWrapper) -> Self {
        Self
    }

    fn signal(self, _: Stop) {}
}
