//! The identity of a caller that has presented valid credentials, so that what belongs to it is
//! given to no other.

use std::fmt;

use http::HeaderValue;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

/// A digest of a caller's credential, or of the subject that its token speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sidecar::gateway) struct CallerIdentity([u8; 32]);

impl CallerIdentity {
    /// The holder of a token.
    pub(in crate::sidecar::gateway) const fn of_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The subject of an issuer's tokens: it stays the same when a token is renewed.
    pub(super) fn of_subject(issuer: &str, subject: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [issuer, subject] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// Returns the caller of a request; `None` if it had to present nothing.
    pub(in crate::sidecar::gateway) fn of_request(head: &Parts) -> Option<Self> {
        head.extensions.get().copied()
    }

    /// Returns the digest, by which callers are told apart.
    pub(in crate::sidecar::gateway) const fn digest(self) -> [u8; 32] {
        self.0
    }

    /// Returns the value that stands for the caller's credential in the key of a cache.
    pub(in crate::sidecar::gateway) fn as_value(self) -> Option<HeaderValue> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut value = HeaderValue::try_from(digits).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for CallerIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SEC-1: not even a digest of a secret is shown.
        out.write_str("CallerIdentity")
    }
}
