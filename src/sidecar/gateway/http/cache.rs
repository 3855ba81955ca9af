//! The last good responses of an HTTP dependency, and the rules for keeping and serving them.
//!
//! The cache is asked only if the dependency gave no answer. It never serves one caller with what
//! another one got (rule EDGE-2).

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    AGE, CONTENT_LENGTH, HeaderName, IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE,
    RANGE, SET_COOKIE, TRAILER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use breakerbox_policy::Time;
use jiff::Timestamp;

use super::cache_key::{CacheKeys, KeyHeaders, varies_by};
use super::dependency::HttpDependency;
use super::directives::{CacheDirectives, age_on_arrival, initial_age, may_serve};
use super::error::{HttpError, speaks_of_caller};
use super::model_verdict::is_event_stream;
use crate::buffer_budget::{BufferBudget, BufferShare, SheddableCache};
use crate::sidecar::gateway::headers::{names_fields, source_beyond};
use crate::sidecar::gateway::message::{HttpReply, HttpRequest};
use crate::{
    AnswerMemory, CallError, Fallback, FallbackFuture, FallbackOutcome, RefreshGuard, StaleCache,
};

/// Request headers that change what a request means: its response is none to the plain request.
static PARTIAL: [HeaderName; 8] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_UNMODIFIED_SINCE,
    HeaderName::from_static("a-im"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// Response headers that are meant for one caller: cookies, and fresh credentials.
static PERSONAL: [HeaderName; 7] = [
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("authorization"),
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    WWW_AUTHENTICATE,
    PROXY_AUTHENTICATE,
];

/// Parts of the names of such headers.
const PERSONAL_PARTS: [&str; 10] = [
    "access-token",
    "api-key",
    "auth-token",
    "csrf",
    "id-token",
    "jwt",
    "refresh-token",
    "secret",
    "session",
    "xsrf",
];

/// Bytes that an entry takes beside its texts: key, reply, and their places in the cache.
const ENTRY: usize = 600;
/// Bytes that a header takes beside its name and value.
const FIELD: usize = 120;
/// Bytes of a long head, to size the shards of a cache.
const LONG_HEAD: u64 = 64_000;

/// Rules for caching responses.
#[derive(Debug, Clone)]
pub(crate) struct CacheRules {
    pub(crate) max_age: Duration,
    pub(crate) max_entries: usize,
    pub(crate) refresh: bool,
    pub(crate) max_body: usize,
    pub(crate) max_bytes: u64,
    pub(crate) headers: KeyHeaders,
    /// True if prohibitions of responses and requests hold.
    pub(crate) obey: bool,
}

/// The stale cache of an HTTP dependency.
pub(crate) struct HttpCache {
    cache: StaleCache<HttpDependency>,
    keys: Arc<CacheKeys>,
    max_body: usize,
    obey: bool,
    budget: BufferBudget,
}

impl SheddableCache for HttpCache {
    fn weight(&self) -> u64 {
        self.cache.weight()
    }

    fn shed(&self) {
        self.cache.shed();
    }
}

impl HttpCache {
    pub(crate) fn new(rules: CacheRules, budget: &BufferBudget) -> Self {
        let max_body = u64::try_from(rules.max_body).unwrap_or(u64::MAX);
        let max_body = max_body.min(rules.max_bytes / 2);
        let bounds = (rules.max_entries, rules.max_bytes);
        let cache = StaleCache::new(rules.max_age, rules.max_entries)
            .max_bytes(bounds, max_body.saturating_add(LONG_HEAD), size)
            .refresh(rules.refresh);
        Self {
            cache,
            keys: Arc::new(CacheKeys::new(rules.headers)),
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            obey: rules.obey,
            budget: budget.clone(),
        }
    }

    /// Lets its entries give way to other bytes that have to be kept.
    pub(crate) fn give_way(self: &Arc<Self>) {
        let own: Weak<Self> = Arc::downgrade(self);
        self.budget.may_shed(own);
    }

    /// Returns true if responses to this request can be cached, if they allow it.
    fn may_hold(request: &HttpRequest) -> bool {
        // EDGE-2: no key tells bodies apart, so that a search never gets the hits of another.
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let sent = request.as_sent();
        // A request that came before a reload gave the dependency its first fallback has lost what
        // may tell its caller apart.
        is_read
            && request.is_as_sent()
            && request.has_no_body()
            && !request.asks_upgrade()
            && !PARTIAL.iter().any(|name| sent.contains_key(name))
            && !CacheDirectives::of_request(sent).has("no-store")
    }

    /// Returns true if a response with this head may be cached.
    fn may_keep(&self, request: &HttpRequest, status: StatusCode, headers: &HeaderMap) -> bool {
        // EDGE-2: what `Connection` names goes no further than the gateway, and may have said that
        // the response is not to be kept.
        let is_cut = names_fields(headers);
        let is_varied = varies_by(headers).is_some();
        if status != StatusCode::OK || is_cut || !is_varied || !Self::may_hold(request) {
            return false;
        }
        // FBK-3: no good answer of the dependency; EDGE-2: events have happened once.
        if source_beyond(headers).is_some() || is_event_stream(headers) {
            return false;
        }
        let said = CacheDirectives::of_response(headers);
        let is_personal = is_personal(headers);
        // EDGE-2: RFC 9111, section 3.5, keeps responses to requests with `Authorization` from all
        // other callers. Here the key does that. Where the configuration takes headers out of the
        // key, responses that are meant for one caller are not cached at all.
        if (is_personal || said.has("private")) && self.keys.are_shared(request) {
            return false;
        }
        !self.obey || !(is_personal || said.forbid_keeping())
    }

    /// Returns the same request, reduced to its key.
    fn keyed(&self, request: &HttpRequest) -> HttpRequest {
        request.keyed(self.keys.of(request))
    }

    /// Removes the answers kept for a request, and keeps none to one that began before.
    fn forget(&self, request: &HttpRequest) {
        // EDGE-2: an older answer may still be on its way.
        self.keys.note_taken_back(request);
        self.cache.forget(&self.keyed(request));
    }

    /// Notes the head of a newer response: what it replaces is not served any more, also if the new
    /// one is not cached. `is_failure`: by the settings.
    fn note(
        &self,
        request: &HttpRequest,
        (status, headers): (StatusCode, &HeaderMap),
        is_failure: bool,
    ) {
        if request.is_write() {
            if status.as_u16() < 400 {
                self.keys.note_write(request);
            }
            return;
        }
        // EDGE-2: an answer that the dependency has taken back, such as one to a caller with
        // revoked credentials, does not come again in the next outage.
        let is_beyond = source_beyond(headers).is_some() && !speaks_of_caller(status.as_u16());
        let is_failure = is_failure || status.is_server_error() || is_beyond;
        let is_final = !is_failure && !is_passing(status);
        if is_final && Self::may_hold(request) && !self.may_keep(request, status, headers) {
            self.forget(request);
        }
    }

    /// Returns a cache that shares the answers and the keys of this one, with the `max_age` and the
    /// `refresh` of other rules.
    pub(crate) fn with_limits(&self, rules: &CacheRules) -> Self {
        let cache = self.cache.with_limits(rules.max_age, rules.max_entries);
        Self {
            cache: cache.refresh(rules.refresh),
            keys: Arc::clone(&self.keys),
            max_body: self.max_body,
            obey: self.obey,
            budget: self.budget.clone(),
        }
    }
}

/// Notes the head of a response in all caches of a dependency; see [`HttpCache::note`].
pub(crate) fn note(
    caches: &[Arc<HttpCache>],
    request: &HttpRequest,
    head: (StatusCode, &HeaderMap),
    is_failure: bool,
) {
    for cache in caches {
        cache.note(request, head, is_failure);
    }
}

/// Returns true for statuses that say nothing of what is kept: it is still so, or ask again.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 304 | 408 | 421 | 424 | 425 | 429)
}

/// Returns true if the head says that the response is meant for one caller.
fn is_personal(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let text = name.as_str();
        PERSONAL.contains(name) || PERSONAL_PARTS.iter().any(|part| text.contains(part))
    })
}

/// Returns the bytes that an entry takes.
fn size(_: &HttpRequest, reply: &HttpReply) -> u64 {
    let fields = reply.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let bytes = ENTRY + reply.body.len() + fields.sum::<usize>();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Copies a reply, so that the cache does not hold the larger buffers of its connection.
fn copied(request: &HttpRequest, reply: &HttpReply) -> HttpReply {
    let mut headers = HeaderMap::with_capacity(reply.headers.keys_len());
    for (name, value) in &reply.headers {
        // These are one caller's, or are made anew. The response to HEAD keeps its length.
        let is_length = *name == CONTENT_LENGTH && *request.method() != Method::HEAD;
        // EDGE-3: no trailers are kept, and none are announced.
        if is_length || *name == TRAILER || PERSONAL.contains(name) {
            continue;
        }
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name.clone(), value);
        }
    }
    // EDGE-2: its time here is added to the age that it has by now.
    let age = initial_age(&headers, Timestamp::now());
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    HttpReply::new(reply.status, headers, Bytes::copy_from_slice(&reply.body))
}

/// The fallback that answers from a cache, which its dependency shares.
#[derive(Debug)]
pub(crate) struct HttpCacheFallback(pub(crate) Arc<HttpCache>);

impl Fallback<HttpDependency> for HttpCacheFallback {
    fn name(&self) -> &str {
        Fallback::<HttpDependency>::name(&self.0.cache)
    }

    fn answer(
        &self,
        request: HttpRequest,
        why: &CallError<HttpError>,
        now: Time,
    ) -> FallbackFuture<HttpReply> {
        if !HttpCache::may_hold(&request) {
            return Box::pin(std::future::ready(FallbackOutcome::Nothing));
        }
        let found = self.0.cache.answer(self.0.keyed(&request), why, now);
        let obey = self.0.obey;
        Box::pin(async move {
            let FallbackOutcome::Answer(mut reply, kept) = found.await else {
                return FallbackOutcome::Nothing;
            };
            let age = kept.unwrap_or_default() + age_on_arrival(&reply.headers);
            let asked = CacheDirectives::of_request(request.as_sent());
            // EDGE-2: what a response or a request forbids to serve stale is not served.
            if obey && !may_serve(&asked, &reply.headers, age) {
                return FallbackOutcome::Nothing;
            }
            reply.headers.remove(AGE);
            FallbackOutcome::Answer(reply, Some(age))
        })
    }

    fn remember(&self, request: &HttpRequest, reply: &HttpReply, now: Time) {
        let cache = &self.0;
        if reply.is_cut || !cache.may_keep(request, reply.status, &reply.headers) {
            return;
        }
        let is_short = reply.body.len() <= cache.max_body;
        if is_short && cache.keys.learn(request, &reply.headers) {
            let mut kept = copied(request, reply);
            let size = usize::try_from(size(request, &kept)).unwrap_or(usize::MAX);
            // EDGE-4: an entry counts against the budget of the process.
            if let Some(share) = cache.budget.try_take(size) {
                kept.body = share.hold(kept.body);
                let keyed = cache.keyed(request);
                if cache.keys.have_changed(request) {
                    return;
                }
                cache.cache.remember(&keyed, &kept, now);
                if cache.keys.have_changed(request) {
                    // It was taken back at this moment.
                    cache.cache.forget(&keyed);
                }
                return;
            }
        }
        cache.forget(request);
    }

    fn refresh_guard(&self, request: &HttpRequest) -> Option<RefreshGuard> {
        // EDGE-2: one refresh for each key, so that callers do not get each other's.
        let guard = || self.0.cache.refresh_guard(&self.0.keyed(request));
        HttpCache::may_hold(request).then(guard).flatten()
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(out)
    }
}

/// A response that is collected for the cache while it is streamed.
pub(crate) struct CacheWriter {
    memory: AnswerMemory<HttpDependency>,
    caches: Arc<[Arc<HttpCache>]>,
    request: HttpRequest,
    status: StatusCode,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    /// Bytes that may still arrive; `None` once there were too many.
    room: Option<usize>,
    share: BufferShare,
    /// Bytes that have arrived.
    length: usize,
}

impl CacheWriter {
    /// Begins with the head. Returns `None` if no cache would accept the response.
    pub(crate) fn begin(
        memory: &AnswerMemory<HttpDependency>,
        caches: &Arc<[Arc<HttpCache>]>,
        request: &HttpRequest,
        (status, headers): (StatusCode, &HeaderMap),
        length: u64,
    ) -> Option<Self> {
        let wanted = caches
            .iter()
            .filter(|cache| cache.may_keep(request, status, headers));
        let (room, budget) = wanted
            .map(|cache| (cache.max_body, &cache.budget))
            .max_by_key(|(room, _)| *room)?;
        if usize::try_from(length).map_or(true, |length| length > room) {
            forget(caches, request);
            return None;
        }
        Some(Self {
            memory: memory.clone(),
            caches: Arc::clone(caches),
            request: request.clone(),
            status,
            headers: headers.clone(),
            pieces: Vec::new(),
            room: Some(room),
            share: budget.share(),
            length: 0,
        })
    }

    pub(crate) fn add(&mut self, piece: &Bytes) {
        let room = self.room.and_then(|room| room.checked_sub(piece.len()));
        self.length += piece.len();
        self.room = room.filter(|_| self.share.grow_to(self.length));
        if self.room.is_some() {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }

    /// Stores the response once it is complete.
    pub(crate) fn keep(self) {
        if self.room.is_none() {
            forget(&self.caches, &self.request);
            return;
        }
        let mut body = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
        for piece in &self.pieces {
            body.extend_from_slice(piece);
        }
        let reply = HttpReply::new(self.status, self.headers, body.freeze());
        self.memory.remember(&self.request, &reply);
    }
}

/// Removes what is kept for a request from all caches: a newer response is too long for them.
fn forget(caches: &[Arc<HttpCache>], request: &HttpRequest) {
    for cache in caches {
        cache.forget(request);
    }
}
