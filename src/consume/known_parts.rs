//! Facts of a process about the servers in one connection: found once, by the first lane that asks.
//!
//! It finds nothing itself.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use breakerbox_actors::SourceError;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The parts of a queue, or its clock, with the number of the connection by which they were found.
#[derive(Debug)]
pub(super) struct KnownParts<T> {
    known: ArcSwapOption<(u64, T)>,
    /// Held by the lane that looks for them; the end and the reason of the last failure.
    search: Mutex<Option<(Instant, SourceError)>>,
}

impl<T> Default for KnownParts<T> {
    fn default() -> Self {
        Self {
            known: ArcSwapOption::empty(),
            search: Mutex::new(None),
        }
    }
}

impl<T> KnownParts<T> {
    /// Returns the parts of the present connection. All that ask while one looks for them have its
    /// result: each of many lanes would make all of them otherwise.
    ///
    /// # Errors  Those of `find`.
    /// # Cancel safety   Dropped while it looks for them, the next one that waits does.
    pub(super) async fn get<F: Future<Output = Result<T, SourceError>>>(
        &self,
        connection: impl Fn() -> u64,
        find: impl FnOnce() -> F,
    ) -> Result<Arc<(u64, T)>, SourceError> {
        if let Some(known) = self.of(connection()) {
            return Ok(known);
        }
        let asked = Instant::now();
        let mut search = self.search.lock().await;
        let connection = connection();
        if let Some(known) = self.of(connection) {
            return Ok(known);
        }
        if let Some((_, error)) = search.as_ref().filter(|(ended, _)| *ended > asked) {
            return Err(error.clone());
        }
        match find().await {
            Ok(found) => {
                let found = Arc::new((connection, found));
                self.known.store(Some(Arc::clone(&found)));
                Ok(found)
            }
            Err(error) => {
                *search = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets the parts, so that they are looked for again.
    pub(super) fn forget(&self) {
        self.known.store(None);
    }

    fn of(&self, connection: u64) -> Option<Arc<(u64, T)>> {
        self.known.load_full().filter(|known| known.0 == connection)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn msg_3_the_parts_of_a_queue_are_made_by_one_lane_for_all() {
        let parts = KnownParts::default();
        let made = AtomicU32::new(0);
        let is_down = AtomicU32::new(1);
        let lanes = async |connection: u64| {
            let lanes = (0..8).map(|_| {
                let find = || async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    match is_down.load(Ordering::Relaxed) {
                        0 => Ok(number),
                        _ => Err(SourceError::Unavailable("down".to_owned())),
                    }
                };
                parts.get(|| connection, find)
            });
            join_all(lanes).await
        };
        let failed = lanes(1).await;
        assert!(failed.iter().all(Result::is_err), "{failed:?}");
        assert_eq!(
            made.load(Ordering::Relaxed),
            1,
            "one failure is told to all"
        );
        is_down.store(0, Ordering::Relaxed);
        for (connection, number) in [(1, 1), (1, 1), (2, 2)] {
            for found in lanes(connection).await {
                assert_eq!(*found.unwrap(), (connection, number));
            }
        }
        parts.forget();
        for found in lanes(2).await {
            assert_eq!(*found.unwrap(), (2, 3));
        }
    }
}
