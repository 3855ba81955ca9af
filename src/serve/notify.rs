//! What a service manager such as systemd hears: that it is ready, that it lives, that it stops.
//!
//! Where none asked for it (`NOTIFY_SOCKET`), nothing is sent.

#[cfg(unix)]
use sd_notify::NotifyState;

/// Says that it is ready. What is given back goes on saying that it lives, where that was asked
/// for (`WATCHDOG_USEC`), until it is dropped.
///
/// It is said by the thread on which the breakers and the supervisors run: when that one is
/// blocked, the watchdog barks.
#[cfg(unix)]
pub(super) fn ready() -> Beats {
    say(NotifyState::Ready);
    let span = sd_notify::watchdog_enabled();
    let beats = span.map(|span| {
        // Twice in each span, so that a late one is no death.
        let every = (span / 2).max(std::time::Duration::from_millis(1));
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(every);
            loop {
                beat.tick().await;
                say(NotifyState::Watchdog);
            }
        })
    });
    Beats(beats)
}

/// Says that it stops; requests in flight may still take their time.
#[cfg(unix)]
pub(super) fn stopping() {
    say(NotifyState::Stopping);
}

#[cfg(unix)]
fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Goes on telling that the process lives.
#[cfg(unix)]
pub(super) struct Beats(Option<tokio::task::JoinHandle<()>>);

#[cfg(unix)]
impl Drop for Beats {
    fn drop(&mut self) {
        if let Some(beats) = &self.0 {
            beats.abort();
        }
    }
}

/// Elsewhere there is nobody to tell.
#[cfg(not(unix))]
pub(super) struct Beats;

#[cfg(not(unix))]
pub(super) fn ready() -> Beats {
    Beats
}

#[cfg(not(unix))]
pub(super) fn stopping() {}
