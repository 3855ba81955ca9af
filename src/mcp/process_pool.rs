//! Processes of a server that has one for each session of a caller (MCP-5), under one breaker.
//!
//! A task supervises each process: it starts the process when its session calls, waits for its end,
//! and lets it be started again after a backoff. It decides nothing about the breaker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use breakerbox_policy::RoundedDuration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::audience::{CallSide, SessionOwner};
use super::error::McpError;
use super::launch::{LaunchedServer, end_of};
use super::liveness::Liveness;
use super::server_state::ServerState;
use super::session::Session;
use super::stderr_tail::StderrTail;
use super::tool_list;
use crate::lock::LockExt as _;

/// Delays of the starts after an end: the first one is made at once.
const DELAYS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// Time of a life after which the delays begin anew.
const HEALTHY: Duration = Duration::from_secs(60);
/// Number of the process that serves callers without a session.
const SHARED: u64 = 0;

/// The processes of a server. Dropping it kills them.
pub(super) struct ProcessPool {
    state: Arc<ServerState>,
    /// The runtime of the worker: a process must not end with the thread of a caller.
    runtime: Handle,
    processes: Arc<Mutex<HashMap<u64, PooledProcess>>>,
}

/// A process of the pool, as callers see it.
struct PooledProcess {
    signals: Arc<PoolSignals>,
    task: JoinHandle<()>,
}

impl Drop for PooledProcess {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Signals between callers and the task of one process.
#[derive(Default)]
struct PoolSignals {
    life: watch::Sender<ProcessLife>,
    /// A call needs the process.
    wanted: Notify,
    /// The process is to end in an orderly way.
    closing: Notify,
}

/// The end of the task of a process, also by a panic: told when it is dropped.
struct KeeperEnd {
    number: u64,
    signals: Arc<PoolSignals>,
    all: Weak<Mutex<HashMap<u64, PooledProcess>>>,
}

impl Drop for KeeperEnd {
    fn drop(&mut self) {
        // MCP-1: calls that wait for it hear of its end.
        self.signals.life.send_replace(ProcessLife::Over);
        // CALL-6: the pool holds the processes of present sessions only.
        if let Some(all) = self.all.upgrade() {
            let own = all.acquire().remove(&self.number);
            drop(own);
        }
    }
}

/// State of a process.
#[derive(Clone, Default)]
enum ProcessLife {
    /// It is started by the next call.
    #[default]
    Idle,
    Starting,
    Running(Arc<Session>, Arc<Liveness>),
    /// It has ended, or was not started. The next start is tried at this time.
    Down(McpError, Instant),
    /// Its session has ended, and it is not started again.
    Over,
}

impl ProcessPool {
    /// Creates the pool, and starts the process for callers without a session.
    ///
    /// # Errors  That process does not start.
    pub(super) async fn start(state: &Arc<ServerState>) -> Result<Self, McpError> {
        let pool = Self {
            state: Arc::clone(state),
            runtime: Handle::current(),
            processes: Arc::default(),
        };
        pool.running(&CallSide::default()).await?;
        Ok(pool)
    }

    /// Returns the connection to the process of a caller, and starts the process if none runs.
    ///
    /// # Errors  The process does not start, or is in its backoff.
    /// # Cancel safety   A start goes on for the next call.
    pub(super) async fn running(
        &self,
        side: &CallSide,
    ) -> Result<(Arc<Session>, Arc<Liveness>), McpError> {
        let signals = self.signals(side);
        let mut life = signals.life.subscribe();
        let mut has_asked = false;
        loop {
            match &*life.borrow_and_update() {
                ProcessLife::Running(session, liveness) => {
                    return Ok((Arc::clone(session), Arc::clone(liveness)));
                }
                ProcessLife::Down(error, again) => {
                    let wait = again.saturating_duration_since(Instant::now());
                    if has_asked || !wait.is_zero() {
                        return Err(down(error, wait, has_asked));
                    }
                    has_asked = true;
                    signals.wanted.notify_one();
                }
                ProcessLife::Idle => {
                    has_asked = true;
                    signals.wanted.notify_one();
                }
                ProcessLife::Starting => has_asked = true,
                ProcessLife::Over => return Err(McpError::SessionOver { was_sent: false }),
            }
            if life.changed().await.is_err() {
                return Err(McpError::SessionOver { was_sent: false });
            }
        }
    }

    /// Returns the connection to the process of a caller, if one runs.
    pub(super) fn present(&self, side: &CallSide) -> Option<Arc<Session>> {
        let number = side.owner_number().unwrap_or(SHARED);
        let processes = self.processes.acquire();
        let life = processes.get(&number)?.signals.life.borrow();
        match &*life {
            ProcessLife::Running(session, _) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Ends all processes in an orderly way.
    pub(super) async fn close(&self) {
        let mut all = std::mem::take(&mut *self.processes.acquire());
        for process in all.values() {
            process.signals.closing.notify_one();
        }
        for process in all.values_mut() {
            // A task that panicked has dropped its process, which kills it.
            let _ = (&mut process.task).await;
        }
    }

    fn signals(&self, side: &CallSide) -> Arc<PoolSignals> {
        let number = side.owner_number().unwrap_or(SHARED);
        let mut processes = self.processes.acquire();
        let process = processes.entry(number).or_insert_with(|| {
            let signals = Arc::new(PoolSignals::default());
            let keeper = ProcessKeeper {
                state: Arc::clone(&self.state),
                owner: side.owner.as_ref().map(Arc::downgrade),
                signals: Arc::clone(&signals),
                tail: match side.owner {
                    // The admin side shows the lines of the process without a session.
                    None => Arc::clone(&self.state.stderr_tail),
                    Some(_) => Arc::new(self.state.new_tail()),
                },
                ends: 0,
            };
            let ended = side.owner.as_ref().map(|owner| owner.ended());
            let (own, all) = (Arc::clone(&signals), Arc::downgrade(&self.processes));
            let task = self.runtime.spawn(async move {
                // Made by the first poll: a runtime that has ended drops the task within `spawn`, under
                // the lock that the end takes.
                let _end = KeeperEnd {
                    number,
                    signals: own,
                    all,
                };
                keeper.keep(ended).await;
            });
            PooledProcess { signals, task }
        });
        Arc::clone(&process.signals)
    }
}

/// Returns the error of a call to a process that is down. `is_new`: it has just failed for this call.
fn down(error: &McpError, wait: Duration, is_new: bool) -> McpError {
    if is_new {
        return error.clone();
    }
    let shown = RoundedDuration(wait);
    McpError::Paused {
        reason: format!("{error}; a call after {shown} starts it again"),
        retry_after: wait,
    }
}

/// Supervisor of one process.
struct ProcessKeeper {
    state: Arc<ServerState>,
    owner: Option<Weak<dyn SessionOwner>>,
    signals: Arc<PoolSignals>,
    tail: Arc<StderrTail>,
    /// Number of ends in a row.
    ends: usize,
}

impl ProcessKeeper {
    /// Keeps the process until its session ends, or the pool closes. `ended`: the session's end.
    async fn keep(mut self, ended: Option<watch::Receiver<bool>>) {
        let signals = Arc::clone(&self.signals);
        let mut over = Box::pin(async move {
            tokio::select! {
                () = signals.closing.notified() => {}
                () = ended_session(ended) => {}
            }
        });
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.signals.wanted.notified() => {}
            }
            self.signals.life.send_replace(ProcessLife::Starting);
            let began = Instant::now();
            let launched = tokio::select! {
                () = &mut over => return,
                launched = self.launch() => launched,
            };
            let (error, liveness) = match launched {
                Err(error) => (error, None),
                Ok(launched) => tokio::select! {
                    () = &mut over => {
                        launched.liveness.declare_over("its session has ended");
                        launched.session.close().await;
                        launched.process.stop().await;
                        return;
                    }
                    reason = self.live(&launched) => {
                        let is_process = true;
                        let ended = McpError::Ended { reason, is_process };
                        (ended, Some(launched.liveness))
                    }
                },
            };
            if began.elapsed() >= HEALTHY {
                self.ends = 0;
            }
            let wait = DELAYS[self.ends.min(DELAYS.len() - 1)];
            self.ends += 1;
            tracing::warn!(%error, "a process of an MCP server has ended");
            let why = match &error {
                McpError::Ended { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
            let life = ProcessLife::Down(error, Instant::now() + wait);
            self.signals.life.send_replace(life);
            if let Some(liveness) = liveness {
                // Its callers learn of it when the next process can be asked for.
                liveness.declare_over(&why);
            }
            tokio::select! {
                () = &mut over => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn launch(&self) -> Result<LaunchedServer, McpError> {
        let owner = match &self.owner {
            None => None,
            Some(owner) => {
                let over = McpError::SessionOver { was_sent: false };
                Some(owner.upgrade().ok_or(over)?)
            }
        };
        LaunchedServer::launch(&self.state, &self.tail, owner.as_ref()).await
    }

    /// Lets callers find a process, waits for its end, and returns the reason.
    async fn live(&self, launched: &LaunchedServer) -> String {
        let own = (
            Arc::clone(&launched.session),
            Arc::clone(&launched.liveness),
        );
        let life = ProcessLife::Running(own.0, own.1);
        self.signals.life.send_replace(life);
        if self.owner.is_some() && self.ends > 0 {
            // MCP-5: the caller has seen the lists of its former process.
            let lists = ["tools", "prompts", "resources"];
            tool_list::tell_of_lists(&launched.session.connection, &lists);
        }
        end_of(&launched.process, &launched.liveness).await
    }
}

/// Waits for the end of a session. Without a session it waits for ever.
async fn ended_session(ended: Option<watch::Receiver<bool>>) {
    match ended {
        // A sender that is gone means that the session is.
        Some(mut ended) => drop(ended.wait_for(|ended| *ended).await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::super::audience::tests::PanickingOwner;
    use super::super::settings::McpSettings;
    use super::*;

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn mcp_1_a_panic_while_a_process_starts_ends_the_wait_for_it() {
        let state = Arc::new(ServerState::new(McpSettings::stdio("cat", [""; 0])));
        let pool = ProcessPool {
            state,
            runtime: Handle::current(),
            processes: Arc::default(),
        };
        for _ in 0..2 {
            let side = PanickingOwner::side();
            let running = timeout(Duration::from_secs(3600), pool.running(&side)).await;
            let error = running.expect("the caller hears of it").err();
            assert!(
                matches!(error, Some(McpError::SessionOver { .. })),
                "{error:?}"
            );
            assert!(pool.processes.acquire().is_empty());
        }
    }
}
