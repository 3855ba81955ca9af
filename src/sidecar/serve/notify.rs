//! Notifications to a service manager such as systemd: ready, alive, stopping.
//!
//! Without `NOTIFY_SOCKET` nothing is sent.

#[cfg(unix)]
use sd_notify::NotifyState;

/// Notifies readiness. If the watchdog is enabled (`WATCHDOG_USEC`), the returned guard keeps it
/// fed until dropped.
///
/// The watchdog task runs on the thread of the breakers and the supervisors. If that thread is
/// blocked, the watchdog fires.
#[cfg(unix)]
pub(super) fn ready() -> WatchdogFeed {
    say(NotifyState::Ready);
    let span = sd_notify::watchdog_enabled();
    let beats = span.map(|span| {
        // Twice in each interval, so that a late notification is tolerated.
        let every = (span / 2).max(std::time::Duration::from_millis(1));
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(every);
            loop {
                beat.tick().await;
                say(NotifyState::Watchdog);
            }
        })
    });
    WatchdogFeed(beats)
}

/// Notifies that it stops; requests in flight may still take some time.
#[cfg(unix)]
pub(super) fn stopping() {
    say(NotifyState::Stopping);
}

#[cfg(unix)]
fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

/// Feeds the watchdog until dropped.
#[cfg(unix)]
pub(super) struct WatchdogFeed(Option<tokio::task::JoinHandle<()>>);

#[cfg(unix)]
impl Drop for WatchdogFeed {
    fn drop(&mut self) {
        if let Some(beats) = &self.0 {
            beats.abort();
        }
    }
}

/// On other systems there is no service manager to notify.
#[cfg(not(unix))]
pub(super) struct WatchdogFeed;

#[cfg(not(unix))]
pub(super) fn ready() -> WatchdogFeed {
    WatchdogFeed
}

#[cfg(not(unix))]
pub(super) fn stopping() {}
