//! The end of a start that hangs: a signal ends the process, although no task of it runs.
//!
//! A start reads files, and a file system that does not answer holds up the thread that reads. The
//! handlers of the signals are installed by then, so their default, which would end it, is gone. Once
//! the start is over, nothing here acts.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Time that a start has to end by itself after it was told to stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks at the signals.
const LOOK: Duration = Duration::from_millis(100);

/// A watch over a start; dropping it ends the watch.
pub(super) struct StartGuard {
    /// Disconnects when it is dropped.
    _over: Sender<()>,
}

impl StartGuard {
    /// Watches from now on. Without a thread or handlers there is no watch.
    pub(super) fn new() -> Self {
        let (over, is_over) = channel::<()>();
        let thread = std::thread::Builder::new().name("start-guard".to_owned());
        let watch = move || {
            let is_over = |wait| {
                let next = is_over.recv_timeout(wait);
                matches!(next, Err(RecvTimeoutError::Disconnected) | Ok(()))
            };
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let Ok(runtime) = builder.enable_all().build() else {
                return;
            };
            let Ok(mut signals) = runtime.block_on(async { super::StopSignal::new() }) else {
                return;
            };
            loop {
                let next = async { tokio::time::timeout(LOOK, signals.next()).await };
                if runtime.block_on(next).is_ok() {
                    break;
                }
                if is_over(Duration::ZERO) {
                    return;
                }
            }
            if !is_over(PATIENCE) {
                // EDGE-8: it is told, for it may have left something half done.
                let text = "breakerbox: told to stop while it starts, and the start does not end\n";
                // There may be nothing to write to.
                let _ = std::io::stderr().write_all(text.as_bytes());
                std::process::exit(1);
            }
        };
        // Without it, a start that hangs is ended by SIGKILL.
        let _ = thread.spawn(watch);
        Self { _over: over }
    }
}
