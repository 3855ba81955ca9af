//! The public keys of an issuer: read when they are needed, and kept.
//!
//! An issuer that cannot be reached changes nothing: the keys that are known go on. A token with a
//! key that is not known makes the keys be read again, but not more often than each interval, so
//! that callers cannot make the gateway flood an issuer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, header::ACCEPT};
use http_body_util::{BodyExt as _, Empty, Limited};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::challenge::AuthRefusal;
use crate::unpooled_http::{innermost, unpooled_client};
use breakerbox_actors::redact;

/// Time after which known keys are read again, in the background.
const FRESH: Duration = Duration::from_secs(600);
/// Minimum time between two attempts to read keys.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time limit for reading keys.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum size of a set of keys, in bytes.
const MAX_SET: usize = 1 << 20;
/// Maximum number of keys that are tried for one token.
const MAX_TRIED: usize = 8;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A public key, and the algorithms for which it is meant.
#[derive(Clone)]
pub(super) struct VerificationKey {
    id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub(super) struct KeyCache(Arc<KeyCacheState>);

struct KeyCacheState {
    place: KeyPlace,
    known: ArcSwapOption<KnownKeys>,
    /// Held while keys are read.
    reading: Mutex<KeyReading>,
    /// True while the last attempt has failed.
    is_failing: AtomicBool,
}

/// The attempts to read keys.
#[derive(Default)]
struct KeyReading {
    /// The last one.
    last: Option<Instant>,
    /// The next one is not before.
    not_before: Option<Instant>,
}

enum KeyPlace {
    Url(String),
    File(PathBuf),
}

struct KnownKeys {
    keys: Vec<VerificationKey>,
    since: Instant,
}

impl KeyCache {
    /// Keys at an address.
    pub(super) fn at(url: &str) -> Self {
        Self::new(KeyPlace::Url(url.to_owned()))
    }

    /// Keys in a file.
    pub(super) fn of_file(path: &Path) -> Self {
        Self::new(KeyPlace::File(path.to_owned()))
    }

    fn new(place: KeyPlace) -> Self {
        Self(Arc::new(KeyCacheState {
            place,
            known: ArcSwapOption::empty(),
            reading: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }))
    }

    /// Returns the keys that a token may be signed with.
    ///
    /// # Errors  No key is known at all, or none fits.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<VerificationKey>, AuthRefusal> {
        let found = |known: &KnownKeys| -> Vec<VerificationKey> {
            // A token without an id may be signed with any key of its kind.
            let fits = |key: &&VerificationKey| match (id, &key.id) {
                (Some(id), Some(own)) => id == own,
                (Some(_), None) => known.keys.len() == 1,
                (None, _) => key.algorithms.contains(&algorithm),
            };
            let keys = known.keys.iter().filter(fits);
            keys.take(MAX_TRIED).cloned().collect()
        };
        if let Some(known) = self.0.known.load_full() {
            let keys = found(&known);
            if !keys.is_empty() {
                if known.since.elapsed() >= FRESH {
                    let own = self.clone();
                    // A reading that has failed since then is no reason to leave it at that.
                    tokio::spawn(async move { own.refresh(Instant::now()).await });
                }
                return Ok(keys);
            }
        }
        self.refresh(Instant::now()).await;
        match self.0.known.load_full() {
            Some(known) => Ok(found(&known)),
            None => Err(AuthRefusal::NoKeys),
        }
    }

    /// Reads the keys, unless another request has done so since, or the last attempt was a moment
    /// ago.
    async fn refresh(&self, asked: Instant) {
        let mut reading = self.0.reading.lock().await;
        let now = Instant::now();
        let is_done = reading.last.is_some_and(|last| last > asked);
        if is_done || reading.not_before.is_some_and(|time| now < time) {
            return;
        }
        let is_first = self.0.known.load().is_none();
        let read = timeout(PATIENCE, self.0.place.read()).await;
        let read = read.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        let end = Instant::now();
        reading.last = Some(end);
        let read = read.and_then(|text| keys_of(&text));
        // A new key may come right after the first reading, and then only at intervals.
        let may_repeat = is_first && read.is_ok();
        reading.not_before = (!may_repeat).then(|| end + INTERVAL);
        match read {
            Ok(keys) => {
                let since = end;
                self.0
                    .known
                    .store(Some(Arc::new(KnownKeys { keys, since })));
                if self.0.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the keys of an issuer of tokens can be read again");
                }
            }
            Err(error) => {
                // MCP-6: known keys go on, and it is told once.
                if !self.0.is_failing.swap(true, Ordering::Relaxed) {
                    let error = redact(&error);
                    tracing::warn!(
                        %error,
                        "the keys of an issuer of tokens cannot be read; those that are known go on"
                    );
                }
            }
        }
    }
}

impl KeyPlace {
    async fn read(&self) -> Result<Bytes, String> {
        match self {
            Self::Url(url) => fetch(url).await,
            Self::File(path) => {
                let path = path.clone();
                let reading = tokio::task::spawn_blocking(move || read_file(&path));
                reading.await.map_err(|error| error.to_string())?
            }
        }
    }
}

/// Checks a file of keys, as the first token would find it.
///
/// # Errors  It cannot be read, or has no key that can be used.
#[cfg(feature = "cli")]
pub(crate) fn check_file(path: &Path) -> Result<(), String> {
    keys_of(&read_file(path)?).map(|_| ())
}

/// Reads a file of keys, of which the size is bounded.
fn read_file(path: &Path) -> Result<Bytes, String> {
    let text = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    let found = std::fs::metadata(path).map_err(text)?;
    // Before it is opened: opening a pipe would wait for its writer.
    if !found.is_file() {
        return Err("it is not a file".to_owned());
    }
    if found.len() > MAX_SET as u64 {
        return Err(format!("it is longer than {MAX_SET} bytes"));
    }
    std::fs::read(path).map(Bytes::from).map_err(text)
}

/// Fetches a document. Redirects are not followed: they could lead anywhere.
async fn fetch(url: &str) -> Result<Bytes, String> {
    // It is used once in ten minutes, on any thread.
    let client = unpooled_client(PATIENCE)?;
    let request = Request::get(url)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = client.request(request).await;
    let response = response.map_err(|error| innermost(&error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("it answers with HTTP status {}", status.as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_SET).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

/// Reads a set of keys. Those of unknown kinds are skipped (RFC 7517, section 5).
fn keys_of(text: &[u8]) -> Result<Vec<VerificationKey>, String> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }
    let set: KeySet =
        serde_json::from_slice(text).map_err(|_| "it is no set of keys (JWKS)".to_owned())?;
    let keys = set.keys.into_iter();
    let keys: Vec<VerificationKey> = keys.filter_map(key_of).collect();
    if keys.is_empty() {
        return Err("it has no key for signatures of the kinds RSA, EC and Ed25519".to_owned());
    }
    Ok(keys)
}

fn key_of(value: Value) -> Option<VerificationKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    if common
        .public_key_use
        .as_ref()
        .is_some_and(|is| *is != PublicKeyUse::Signature)
    {
        return None;
    }
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &RSA,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        // A shared secret is no public key.
        _ => return None,
    };
    let algorithms = match common.key_algorithm {
        None => possible.to_vec(),
        Some(own) => {
            let own = algorithm_of(own)?;
            possible.iter().copied().filter(|one| *one == own).collect()
        }
    };
    if algorithms.is_empty() {
        return None;
    }
    Some(VerificationKey {
        id: common.key_id.clone(),
        algorithms,
        key: DecodingKey::from_jwk(&jwk).ok()?,
    })
}

fn algorithm_of(own: KeyAlgorithm) -> Option<Algorithm> {
    own.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: &str) -> String {
        let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{key}"}}]}}"#)
    }

    #[tokio::test]
    async fn mcp_6_m12_keys_are_read_again_after_a_reading_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set("one")).unwrap();
        let cache = KeyCache::of_file(&file);
        let known = async |id: Option<&str>| cache.find(id, Algorithm::EdDSA).await.unwrap();
        assert_eq!(known(Some("one")).await.len(), 1);
        tokio::time::pause();
        for text in ["broken".to_owned(), set("two")] {
            std::fs::write(&file, text).unwrap();
            tokio::time::advance(FRESH + INTERVAL).await;
            // What is known answers, and the reading goes on beside it.
            assert_eq!(known(None).await.len(), 1);
            let reading = async {
                tokio::task::yield_now().await;
                drop(cache.0.reading.lock().await);
            };
            reading.await;
        }
        assert_eq!(known(Some("two")).await.len(), 1);
    }
}
