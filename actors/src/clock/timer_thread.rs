//! A thread that times the sleeps of threads without tokio. It runs no code of users.
//!
//! It is started by the first such sleep, and ends with the last handle of its clock.

use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The thread, once it is needed; `None` within if it could not be started.
#[derive(Debug, Default)]
pub(super) struct TimerThread(OnceLock<Option<RunningTimers>>);

#[derive(Debug)]
struct RunningTimers {
    handle: Handle,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

impl TimerThread {
    /// Returns the handle of its timers; starts the thread if it does not run yet.
    pub(super) fn handle(&self) -> Option<&Handle> {
        let running = self.0.get_or_init(start);
        running.as_ref().map(|running| &running.handle)
    }
}

fn start() -> Option<RunningTimers> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new().name("breakerbox-time".to_owned());
    let run = move || {
        let timers = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let Ok(timers) = timers else {
            return;
        };
        // Fails only if the thread that waits for it is gone.
        let _ = tell.send(timers.handle().clone());
        // Ends with an error, when the sender is dropped.
        let _ = timers.block_on(stopped);
    };
    thread.spawn(run).ok()?;
    let handle = told.recv().ok()?;
    Some(RunningTimers {
        handle,
        _stop: stop,
    })
}
