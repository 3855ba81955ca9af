//! The start of a runtime's tree, on its control thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use actix::{Arbiter, ArbiterHandle, System};
use breakerbox_policy::supervision::StopCause;
use futures_channel::mpsc;
use tokio::sync::{oneshot, watch};

use super::RootCommands;
use crate::clock::Clock;
use crate::error::StartError;
use crate::event::EventBus;
use crate::supervisor::{
    DriverCommand, DriverNews, Group, GroupRef, HomeThread, SupervisorContext, Tell, Threads,
    Watchers,
};
use crate::sync::LockExt;

/// The thread of a runtime that was started outside of actix.
pub(super) struct OwnThread {
    pub(super) stop: oneshot::Sender<()>,
    pub(super) handle: JoinHandle<()>,
}

/// The inputs for the start of a tree.
pub(super) struct StartContext {
    pub(super) clock: Clock,
    pub(super) extra_threads: usize,
    pub(super) arbiters: Vec<ArbiterHandle>,
}

/// The parts of a tree that was just started on its thread.
pub(super) struct StartedTree {
    pub(super) around: SupervisorContext,
    pub(super) root: GroupRef,
    pub(super) commands: RootCommands,
    pub(super) end: watch::Receiver<Option<StopCause>>,
}

/// Starts a tree, and a thread for it if it needs one that actix does not stop.
pub(super) async fn start(
    context: StartContext,
) -> Result<(StartedTree, Option<OwnThread>), StartError> {
    let Some(here) = running_arbiter().await else {
        let (tree, thread) = start_on_thread(context).await?;
        return Ok((tree, Some(thread)));
    };
    if context.clock.is_virtual() {
        let tree = start_here(context, HomeThread::Control).map_err(StartError::Thread)?;
        return Ok((tree, None));
    }
    let failed = |error: std::io::Error| StartError::Thread(error.to_string());
    let control = Arbiter::try_new().map_err(failed)?;
    let (tell, told) = oneshot::channel();
    control.spawn_fn(move || {
        // Sending fails if the starting task is gone; the tree is then dropped too.
        let _ = tell.send(start_here(context, HomeThread::Program(here)));
    });
    let tree = told.await.map_err(ended)?.map_err(StartError::Thread)?;
    tree.around.threads.adopt(control);
    Ok((tree, None))
}

fn ended(_: oneshot::error::RecvError) -> StartError {
    StartError::Thread("it ended while it started".to_owned())
}

/// Returns the actix arbiter that runs on this thread now. One that has ended, or that nothing
/// polls at present, still counts as registered for actix.
async fn running_arbiter() -> Option<ArbiterHandle> {
    /// Number of turns in which a task of this thread has certainly been polled.
    const TURNS: usize = 64;
    let here = Arbiter::try_current().filter(|_| System::is_registered())?;
    let answers = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&answers);
    if !here.spawn_fn(move || told.store(true, Ordering::Release)) {
        return None;
    }
    for _ in 0..TURNS {
        if answers.load(Ordering::Acquire) {
            return Some(here);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Starts the root supervisor on this thread.
fn start_here(context: StartContext, home: HomeThread) -> Result<StartedTree, String> {
    let StartContext {
        clock,
        extra_threads,
        arbiters,
    } = context;
    let clock = clock.with_timers_everywhere();
    let around = SupervisorContext {
        events: EventBus::new(clock.clone()),
        clock: clock.clone(),
        threads: Threads::new(home, extra_threads, arbiters)?,
        watchers: Watchers::default(),
    };
    let root = Group::new("");
    let handle = GroupRef {
        name: String::new(),
        addr: root.slot.addr.clone(),
        clock,
    };
    let (commands, inbox) = mpsc::unbounded();
    let (ended, end) = watch::channel(None);
    // The driver that receives it is spawned below.
    let _ = commands.unbounded_send(DriverCommand::Start { incarnation: 1 });
    let commands = Arc::new(Mutex::new(Some(commands)));
    let last_commands = Arc::clone(&commands);
    let tell: Tell = Box::new(move |_, news| {
        if let DriverNews::Ended(cause) | DriverNews::StartFailed(cause) = news {
            drop(last_commands.acquire().take());
            ended.send_replace(Some(cause));
        }
    });
    let body = root.into_body("", &around);
    body.spawn(&around.threads, inbox, tell)?;
    Ok(StartedTree {
        around,
        root: handle,
        commands,
        end,
    })
}

/// Starts the root supervisor on a new thread with an actix system.
async fn start_on_thread(context: StartContext) -> Result<(StartedTree, OwnThread), StartError> {
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let home = if context.clock.is_virtual() {
        HomeThread::Control
    } else {
        HomeThread::New
    };
    let run = move || {
        System::new().block_on(async move {
            // Sending fails if the starting task is gone; the tree is then dropped too.
            if tell.send(start_here(context, home)).is_ok() {
                let _ = stopped.await;
            }
        });
    };
    let handle = std::thread::Builder::new()
        .name("breakerbox".to_owned())
        .spawn(run)
        .map_err(|error| StartError::Thread(error.to_string()))?;
    let tree = told.await.map_err(ended)?.map_err(StartError::Thread)?;
    Ok((tree, OwnThread { stop, handle }))
}
