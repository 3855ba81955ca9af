//! The servers' time, by this process's own monotonic clock: no wall clock of this machine counts.

use std::time::Duration;

use tokio::time::Instant;

/// Time after which the difference is measured again: clocks drift apart, and that of the server may be
/// set, or be another server's.
const FRESH: Duration = Duration::from_secs(30);

/// A moment of the servers, and the same moment here.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerClock {
    /// Nanoseconds since 1970.
    server: i128,
    here: Instant,
}

impl ServerClock {
    /// `server`: nanoseconds since 1970 at a moment between `before` and now.
    pub(super) fn at(server: i128, before: Instant) -> Self {
        let here = before + before.elapsed() / 2;
        Self { server, here }
    }

    /// Returns true if it has to be measured again.
    pub(super) fn is_old(&self) -> bool {
        self.here.elapsed() > FRESH
    }

    /// Returns the age of a message that the servers took at this moment.
    pub(super) fn age(&self, published: i128) -> Duration {
        // MSG-8: in the server's time.
        let now = self.server + i128::try_from(self.here.elapsed().as_nanos()).unwrap_or_default();
        let age = u64::try_from(now - published).unwrap_or_default();
        Duration::from_nanos(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn msg_8_a_server_clock_that_was_set_is_read_again_within_a_minute() {
        let clock = ServerClock::at(5_000_000_000, Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(clock.is_old());
    }

    #[tokio::test(start_paused = true)]
    async fn msg_8_an_age_is_told_by_the_servers_time() {
        let clock = ServerClock::at(5_000_000_000, Instant::now());
        assert_eq!(clock.age(4_000_000_000), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.age(4_000_000_000), Duration::from_secs(3));
        assert_eq!(clock.age(9_000_000_000), Duration::ZERO);
        assert!(!clock.is_old());
        tokio::time::advance(FRESH).await;
        assert!(clock.is_old());
    }
}
