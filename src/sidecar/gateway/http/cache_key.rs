//! Keys of cached responses: digests of everything that may change the answer to a request.
//!
//! Every header is part of the key, except those that change no answer: a list of the headers by which
//! services tell their callers apart would lack the next one.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::header::{COOKIE, HeaderName, VARY};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::lock::LockExt as _;
use crate::sidecar::gateway::message::{HttpRequest, RequestKey};

/// Headers that change no answer: they describe the connection, the client program or the trace, or
/// they are evaluated apart.
const NEUTRAL: [&str; 94] = [
    "alt-used",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "b3",
    "baggage",
    "breakerbox-deadline-ms",
    "breakerbox-priority",
    "cache-control",
    "cdn-loop",
    "cf-ray",
    "connection",
    "content-length",
    "correlation-id",
    "date",
    "dnt",
    "elastic-apm-traceparent",
    "expect",
    "grpc-timeout",
    "grpc-trace-bin",
    "http2-settings",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "max-forwards",
    "newrelic",
    "ot-tracer-sampled",
    "ot-tracer-spanid",
    "ot-tracer-traceid",
    "pragma",
    "priority",
    "proxy-connection",
    "purpose",
    "referer",
    "request-id",
    "save-data",
    "sec-gpc",
    "sec-purpose",
    "sentry-trace",
    "te",
    "trace-id",
    "traceid",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "x-amz-cf-id",
    "x-amz-user-agent",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-goog-api-client",
    "x-ms-client-request-id",
    "x-ms-correlation-request-id",
    "x-ot-span-context",
    "x-queue-start",
    "x-request-id",
    "x-request-start",
    "x-retry-count",
    "x-span-id",
    "x-stainless-arch",
    "x-stainless-async",
    "x-stainless-custom-poll-interval",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-poll-helper",
    "x-stainless-raw-response",
    "x-stainless-read-timeout",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
    "x-trace-id",
    "x-traceid",
    "x-transaction-id",
    "x-user-agent",
];

/// Beginnings of the names of such headers. Browsers set them, and no script can.
const NEUTRAL_STARTS: [&str; 2] = ["sec-ch-", "sec-fetch-"];

/// Maximum number of targets with a `Vary` header that names headers outside the key.
const MAX_TARGETS: usize = 4096;
/// Maximum number of such headers for one target.
const MAX_NAMES: usize = 16;
/// Number of counters of writes. Targets with the same counter are invalidated together.
const SLOTS: usize = 1 << 16;

/// Number of places for the latest changes. A change makes the answers that are on their way to the
/// other targets of its place too old to be kept.
const CHANGE_SLOTS: usize = 1 << 14;

/// Number of the changes that the caches of this process were told of.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Number of a change that caches were told of: a write, or an answer that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sidecar::gateway) struct ChangeNumber(u64);

impl ChangeNumber {
    /// Returns the latest one.
    pub(in crate::sidecar::gateway) fn latest() -> Self {
        Self(CHANGES.load(Ordering::SeqCst))
    }
}

/// Headers that the configuration adds to the key, or takes out of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyHeaders {
    added: Vec<HeaderName>,
    left_out: Vec<HeaderName>,
}

impl KeyHeaders {
    /// Reads names; one that begins with `!` is taken out.
    pub(crate) fn of(names: &[String]) -> Self {
        let mut read = Self::default();
        for name in names {
            let (list, name) = match name.strip_prefix('!') {
                Some(name) => (&mut read.left_out, name),
                None => (&mut read.added, name.as_str()),
            };
            list.extend(HeaderName::try_from(name).ok());
        }
        read
    }

    /// Returns true if the header is part of every key.
    fn include(&self, name: &HeaderName) -> bool {
        // EDGE-2: a name that is not known may tell callers apart, however short its values are.
        self.added.contains(name) || !(self.left_out.contains(name) || is_neutral(name))
    }
}

fn is_neutral(name: &HeaderName) -> bool {
    let name = name.as_str();
    // EDGE-2: only a name that is known whole, so that `x-trace-customer` is no id of a trace.
    NEUTRAL.binary_search(&name).is_ok()
        || NEUTRAL_STARTS.iter().any(|start| name.starts_with(start))
}

/// Makes the keys of one cache.
pub(crate) struct CacheKeys {
    /// Different in each process and cache, so that the digest of a short secret cannot be looked
    /// up in a table.
    salt: [u8; 16],
    headers: KeyHeaders,
    /// Headers outside the key that `Vary` has named, by target.
    varying: Mutex<HashMap<RequestKey, Arc<[HeaderName]>>>,
    /// Numbers of writes; part of the keys.
    written: Box<[AtomicU32]>,
    /// The latest changes, by target and by request.
    changed: Box<[AtomicU64]>,
}

impl CacheKeys {
    pub(crate) fn new(headers: KeyHeaders) -> Self {
        let random = || RandomState::new().hash_one(0_u8).to_le_bytes();
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&random());
        salt[8..].copy_from_slice(&random());
        Self {
            salt,
            headers,
            varying: Mutex::default(),
            written: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            changed: (0..CHANGE_SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Returns true if the key leaves out a header that the request has: callers may share a key.
    pub(crate) fn are_shared(&self, request: &HttpRequest) -> bool {
        let sent = request.as_sent();
        let left_out = &self.headers.left_out;
        left_out
            .iter()
            .any(|name| sent.contains_key(name) && !self.headers.added.contains(name))
    }

    /// Returns the key of a request.
    pub(crate) fn of(&self, request: &HttpRequest) -> RequestKey {
        let target = self.of_target(request);
        let varying = self.varying.acquire().get(&target).cloned();
        self.digest(request, target, varying.as_deref().unwrap_or_default())
    }

    /// Returns the digest of a request. `varying`: the headers that count beside those of every key.
    fn digest(
        &self,
        request: &HttpRequest,
        target: RequestKey,
        varying: &[HeaderName],
    ) -> RequestKey {
        let sent = request.as_sent();
        let is_part = |name: &&HeaderName| self.headers.include(name) || varying.contains(name);
        let mut names: Vec<&HeaderName> = sent.keys().filter(is_part).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        let mut hash = Sha256::new();
        hash.update(target);
        hash.update(self.writes(&target).load(Ordering::SeqCst).to_le_bytes());
        part(&mut hash, request.method().as_str().as_bytes());
        for name in names {
            part(&mut hash, name.as_str().as_bytes());
            let values = sent.get_all(name);
            if *name == COOKIE {
                // RFC 9113, section 8.2.3: several fields of cookies are one that was split.
                let crumbs: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
                part(&mut hash, &crumbs.join(&b"; "[..]));
                continue;
            }
            hash.update(values.iter().count().to_le_bytes());
            for value in values {
                part(&mut hash, value.as_bytes());
            }
        }
        hash.finalize().into()
    }

    fn of_target(&self, request: &HttpRequest) -> RequestKey {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        part(&mut hash, request.target().as_bytes());
        hash.finalize().into()
    }

    /// Takes the headers into the key that a response says to vary by. Returns false if it may not
    /// be cached: it varies by more than can be told.
    pub(crate) fn learn(&self, request: &HttpRequest, headers: &HeaderMap) -> bool {
        let Some(mut names) = varies_by(headers) else {
            return false;
        };
        names.retain(|name| !self.headers.include(name));
        if names.is_empty() {
            return true;
        }
        let target = self.of_target(request);
        let mut varying = self.varying.acquire();
        let known = varying.get(&target).map_or(&[][..], |known| known);
        names.extend_from_slice(known);
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        if names.len() > MAX_NAMES {
            return false;
        }
        if *names != *known {
            if varying.len() >= MAX_TARGETS {
                // What was kept with these names is no longer found.
                varying.clear();
            }
            varying.insert(target, names.into());
        }
        true
    }

    /// Notes a write: what was kept of its target is no longer found (RFC 9111, section 4.4).
    pub(crate) fn note_write(&self, request: &HttpRequest) {
        let target = self.of_target(request);
        // The change first: an answer that is on its way then finds the one or the other.
        self.note_change(&target);
        self.writes(&target).fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that the answers kept for a request were taken back.
    pub(crate) fn note_taken_back(&self, request: &HttpRequest) {
        self.note_change(&self.digest(request, self.of_target(request), &[]));
    }

    fn note_change(&self, of: &RequestKey) {
        let number = CHANGES.fetch_add(1, Ordering::SeqCst) + 1;
        self.change(of).fetch_max(number, Ordering::SeqCst);
    }

    /// Returns true if a write, or an answer that takes earlier ones back, has come since the request
    /// began: its answer may be older.
    pub(crate) fn have_changed(&self, request: &HttpRequest) -> bool {
        let target = self.of_target(request);
        let own = self.digest(request, target, &[]);
        let latest = [&target, &own].map(|of| self.change(of).load(Ordering::SeqCst));
        // EDGE-2: RFC 9111, section 4.4; what a server answered before a write is not kept after it.
        latest
            .into_iter()
            .any(|number| ChangeNumber(number) > request.begun())
    }

    fn change(&self, of: &RequestKey) -> &AtomicU64 {
        let number = usize::from(u16::from_le_bytes([of[2], of[3]]));
        &self.changed[number % CHANGE_SLOTS]
    }

    fn writes(&self, target: &RequestKey) -> &AtomicU32 {
        let number = usize::from(u16::from_le_bytes([target[0], target[1]]));
        &self.written[number % SLOTS]
    }
}

/// Returns the headers that `Vary` names; `None` if it names all, or something else.
pub(crate) fn varies_by(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for name in line.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            if name == b"*" {
                return None;
            }
            if !name.is_empty() {
                names.push(HeaderName::from_bytes(name).ok()?);
            }
        }
    }
    Some(names)
}

/// Adds a text with its length, so that no two lists of texts look the same.
fn part(hash: &mut Sha256, text: &[u8]) {
    hash.update(text.len().to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutral_headers_are_in_order() {
        assert!(NEUTRAL.is_sorted());
    }

    #[test]
    fn edge_2_f3_only_headers_that_change_no_answer_are_outside_the_key() {
        let part =
            |name: &'static str, rules: &KeyHeaders| rules.include(&HeaderName::from_static(name));
        let rules = KeyHeaders::default();
        for name in [
            "x-scope-orgid",
            "x-original-url",
            "x-ssl-client-s-dn",
            "x-sid",
            "x-trace-token",
            "x-of-no-known-name",
            "x-trace-customer",
            "x-trace-mode",
            "x-correlation-id-org",
            "x-datadog-org",
            "x-stacktrace-level",
            "x-my-sec-ch-ua",
            "accept-language",
            "x-forwarded-for",
        ] {
            assert!(part(name, &rules), "{name}");
        }
        for name in [
            "user-agent",
            "traceparent",
            "x-request-id",
            "x-amzn-trace-id",
            "x-correlation-id",
            "x-datadog-trace-id",
            "x-b3-traceid",
            "x-stainless-lang",
            "sec-ch-ua",
        ] {
            assert!(!part(name, &rules), "{name}");
        }
        let rules = KeyHeaders::of(&["!x-sid".to_owned(), "user-agent".to_owned()]);
        assert!(!part("x-sid", &rules) && part("user-agent", &rules));
    }
}
