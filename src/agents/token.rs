//! Access tokens: their sources, caching and refresh.
//!
//! Callers ask [`Tokens`]; concurrent requests share one fetch. A [`TokenSource`] does the
//! fetching.

mod discovery;
mod file;
mod keeper;
mod sources;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::ServiceError;
use crate::config::Secret;
use crate::policy::{Symptom, Time};
use crate::{Clock, Verdict};

pub use discovery::Credentials;
pub use file::CredentialFile;
pub(super) use keeper::keep;
pub use sources::{ServiceAccount, TokenEndpoint};

/// The requested OAuth scope: the only one that vector search accepts.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Time before its expiry at which a token is refreshed, so that none expires in transit.
const MARGIN: Duration = Duration::from_secs(60);
/// Limit for one token request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for which a failed fetch also answers the callers that waited behind it.
const ECHO: Duration = Duration::from_millis(250);

/// An access token. Its `Debug` does not show the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The text after `Bearer`.
    pub text: Secret,
    /// The time for which it is valid.
    pub lasts: Duration,
}

/// A source of tokens: one request per fetch, without retries or caching.
pub trait TokenSource: Send + Sync + 'static {
    /// Requests a new token.
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>>;

    /// Returns the project for the quota of requests with these tokens, if the credentials name one.
    fn quota_project(&self) -> Option<String> {
        None
    }
}

/// Cached token, shared by all workers of a program.
pub struct Tokens {
    source: Arc<dyn TokenSource>,
    clock: Clock,
    kept: Mutex<CachedToken>,
}

#[derive(Default)]
struct CachedToken {
    token: Option<KnownToken>,
    failed: Option<(ServiceError, Time)>,
}

struct KnownToken {
    text: Secret,
    /// Time from which another one is fetched.
    fresh_until: Time,
    valid_until: Time,
}

impl Tokens {
    /// Creates an empty cache.
    #[must_use]
    pub fn new(source: Arc<dyn TokenSource>, clock: Clock) -> Self {
        Self {
            source,
            clock,
            kept: Mutex::default(),
        }
    }

    /// Returns a valid token, fetched if none is cached.
    ///
    /// # Errors  No token could be fetched.
    pub async fn current(&self) -> Result<Secret, ServiceError> {
        let mut kept = self.kept.lock().await;
        let fresh = self.fresh(&mut kept).await;
        let now = self.clock.now();
        match &kept.token {
            // Its last seconds are better than none.
            Some(known) if fresh.is_err() && now < known.valid_until => Ok(known.text.clone()),
            _ => fresh,
        }
    }

    /// Returns a token that is not about to expire.
    async fn fresh(&self, kept: &mut CachedToken) -> Result<Secret, ServiceError> {
        let now = self.clock.now();
        match &kept.token {
            Some(known) if now < known.fresh_until => Ok(known.text.clone()),
            _ => self.fetch(kept).await,
        }
    }

    /// Returns a token other than `refused`, which a service rejected. Of the callers that had it,
    /// the first one fetches.
    ///
    /// # Errors  As [`Tokens::current`].
    pub async fn refresh(&self, refused: &Secret) -> Result<Secret, ServiceError> {
        let mut kept = self.kept.lock().await;
        match &kept.token {
            Some(known) if known.text != *refused => Ok(known.text.clone()),
            _ => {
                kept.token = None;
                self.fetch(&mut kept).await
            }
        }
    }

    /// Returns the project for the quota of requests with these tokens, for the header
    /// `x-goog-user-project`.
    #[must_use]
    pub fn quota_project(&self) -> Option<String> {
        self.source.quota_project()
    }

    /// Fetches a new token even if one is cached, to check the source. Calls use the cached one
    /// meanwhile, and go on with it if the check fails.
    ///
    /// # Errors  As [`Tokens::current`].
    pub async fn check(&self) -> Result<(), ServiceError> {
        let asked = self.ask().await;
        let mut kept = self.kept.lock().await;
        self.keep(&mut kept, asked).map(|_| ())
    }

    /// Ensures that a token is cached, and returns the time until the next refresh.
    async fn tend(&self) -> Result<Duration, ServiceError> {
        let mut kept = self.kept.lock().await;
        self.fresh(&mut kept).await?;
        let until = kept.token.as_ref().map(|known| known.fresh_until);
        Ok(until.map_or(MARGIN, |until| until.since(self.clock.now())))
    }

    async fn fetch(&self, kept: &mut CachedToken) -> Result<Secret, ServiceError> {
        let now = self.clock.now();
        if let Some((error, at)) = &kept.failed
            && now.since(*at) < ECHO
        {
            return Err(error.clone());
        }
        let asked = self.ask().await;
        self.keep(kept, asked)
    }

    async fn ask(&self) -> Result<Token, ServiceError> {
        let end = self.clock.now().after(PATIENCE);
        tokio::select! {
            biased;
            asked = self.source.fetch() => asked,
            () = self.clock.sleep_until(end) => {
                Err(ServiceError::new(Verdict::from(Symptom::Timeout), "it did not answer in time"))
            }
        }
    }

    /// Keeps a token that was fetched, or the error.
    fn keep(
        &self,
        kept: &mut CachedToken,
        asked: Result<Token, ServiceError>,
    ) -> Result<Secret, ServiceError> {
        let now = self.clock.now();
        match asked {
            Ok(Token { text, lasts }) => {
                // A short-lived token is used for half of its lifetime.
                let fresh = lasts.saturating_sub(MARGIN).max(lasts / 2);
                kept.token = Some(KnownToken {
                    text: text.clone(),
                    fresh_until: now.after(fresh),
                    valid_until: now.after(lasts),
                });
                kept.failed = None;
                Ok(text)
            }
            Err(error) => {
                let text = format!("no access token: {error}");
                let error = ServiceError::new(error.verdict(), text);
                kept.failed = Some((error.clone(), now));
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    /// A source that numbers its tokens; its requests with these numbers fail.
    struct NumberedToken {
        asked: Arc<AtomicU32>,
        failing: std::ops::RangeInclusive<u32>,
    }

    impl TokenSource for NumberedToken {
        fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
            let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.failing.contains(&number) {
                    return Err(ServiceError::new(Verdict::from(Symptom::Connect), "down"));
                }
                Ok(Token {
                    text: Secret::new(format!("token-{number}")),
                    lasts: Duration::from_secs(3600),
                })
            }
            .boxed()
        }
    }

    fn tokens(failing: u32) -> (Tokens, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let source = NumberedToken {
            asked: Arc::clone(&asked),
            failing: 1..=failing,
        };
        (Tokens::new(Arc::new(source), Clock::tokio()), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_until_it_expires_while_no_other_can_be_fetched() {
        let source = NumberedToken {
            asked: Arc::default(),
            failing: 2..=u32::MAX,
        };
        let tokens = Tokens::new(Arc::new(source), Clock::tokio());
        tokens.current().await.unwrap();
        tokens.check().await.unwrap_err();
        assert_eq!(tokens.current().await.unwrap().expose(), "token-1");
        tokio::time::advance(Duration::from_secs(3_550)).await;
        assert_eq!(tokens.current().await.unwrap().expose(), "token-1");
        tokio::time::advance(Duration::from_secs(60)).await;
        tokens.current().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_for_once_and_again_before_its_end() {
        let (tokens, asked) = tokens(0);
        let all = join_all((0..50).map(|_| tokens.current())).await;
        assert!(all.iter().all(|one| one == &all[0] && one.is_ok()));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(3600 - 61)).await;
        tokens.current().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tokens.current().await.unwrap().expose(), "token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn item_53_a_refused_token_is_renewed_once_however_many_had_it() {
        let (tokens, asked) = tokens(0);
        let refused = tokens.current().await.unwrap();
        let all = join_all((0..50).map(|_| tokens.refresh(&refused))).await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().unwrap().expose() == "token-2")
        );
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_request_answers_for_those_who_wait_behind_it() {
        let (tokens, asked) = tokens(1);
        let all = join_all((0..50).map(|_| tokens.current())).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(ECHO).await;
        tokens.current().await.unwrap();
    }
}
