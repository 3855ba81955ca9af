//! The last good responses of an HTTP dependency: the rules for caching them, and their keys.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, RANGE, SET_COOKIE, VARY};
use http::{HeaderMap, StatusCode};

use breakerbox_policy::Time;

use super::dependency::HttpDependency;
use super::error::HttpError;
use crate::sidecar::gateway::message::{HttpReply, HttpRequest};
use crate::{AnswerMemory, CallError, Fallback, FallbackFuture, RefreshGuard, StaleCache};

/// Rules for caching responses.
#[derive(Debug, Clone)]
pub(crate) struct CacheRules {
    pub(crate) max_body: usize,
    /// Request headers that are part of the cache key.
    pub(crate) headers: Vec<HeaderName>,
}

impl CacheRules {
    /// Returns true if a response with this head may be cached: a complete success to a read
    /// request, without `no-store`, that varies only by headers of the cache key.
    fn may_keep(&self, request: &HttpRequest, status: StatusCode, headers: &HeaderMap) -> bool {
        let lines = |name| {
            let lines = headers.get_all(name).iter();
            let lines = lines.filter_map(|line| line.to_str().ok());
            lines.flat_map(|line| line.split(',')).map(str::trim)
        };
        let forbids = |word: &str| word.eq_ignore_ascii_case("no-store");
        let is_told = |name: &str| {
            let mut told = self.headers.iter();
            told.any(|one| one.as_str().eq_ignore_ascii_case(name))
        };
        status == StatusCode::OK
            && !request.is_write()
            && !request.headers().contains_key(RANGE)
            && !lines(CACHE_CONTROL).any(forbids)
            && lines(VARY).all(|name| name.is_empty() || is_told(name))
    }
}

/// The stale cache of an HTTP dependency.
pub(crate) struct HttpCache {
    cache: StaleCache<HttpDependency>,
    rules: CacheRules,
}

impl HttpCache {
    pub(crate) fn new(
        max_age: Duration,
        max_entries: usize,
        refresh: bool,
        rules: CacheRules,
    ) -> Self {
        let cache = StaleCache::new(max_age, max_entries).refresh(refresh);
        Self { cache, rules }
    }

    /// Returns a cache with other limits that shares the answers of this one.
    pub(crate) fn with_limits(
        &self,
        max_age: Duration,
        max_entries: usize,
        refresh: bool,
        rules: CacheRules,
    ) -> Self {
        let cache = self.cache.with_limits(max_age, max_entries);
        let cache = cache.refresh(refresh);
        Self { cache, rules }
    }
}

impl Fallback<HttpDependency> for HttpCache {
    fn name(&self) -> &str {
        Fallback::<HttpDependency>::name(&self.cache)
    }

    fn answer(
        &self,
        request: HttpRequest,
        why: &CallError<HttpError>,
        now: Time,
    ) -> FallbackFuture<HttpReply> {
        let request = request.keyed(&self.rules.headers);
        self.cache.answer(request, why, now)
    }

    fn remember(&self, request: &HttpRequest, reply: &HttpReply, now: Time) {
        let is_short = reply.body.len() <= self.rules.max_body;
        if is_short && self.rules.may_keep(request, reply.status, &reply.headers) {
            let request = request.keyed(&self.rules.headers);
            let mut reply = reply.clone();
            // These headers belong to one caller and one moment.
            for name in [SET_COOKIE, AGE, CONTENT_LENGTH] {
                reply.headers.remove(name);
            }
            self.cache.remember(&request, &reply, now);
        }
    }

    fn refresh_guard(&self, request: &HttpRequest) -> Option<RefreshGuard> {
        self.cache
            .refresh_guard(&request.keyed(&self.rules.headers))
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
    request: HttpRequest,
    status: StatusCode,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    /// Bytes that may still arrive; `None` once there were too many.
    room: Option<usize>,
}

impl CacheWriter {
    /// Begins with the head. Returns `None` if no cache would accept the response.
    pub(crate) fn begin(
        memory: &AnswerMemory<HttpDependency>,
        caches: &[CacheRules],
        request: &HttpRequest,
        (status, headers): (StatusCode, &HeaderMap),
        length: u64,
    ) -> Option<Self> {
        let wanted = caches
            .iter()
            .filter(|rules| rules.may_keep(request, status, headers));
        let room = wanted.map(|rules| rules.max_body).max()?;
        if usize::try_from(length).map_or(true, |length| length > room) {
            return None;
        }
        Some(Self {
            memory: memory.clone(),
            request: request.clone(),
            status,
            headers: headers.clone(),
            pieces: Vec::new(),
            room: Some(room),
        })
    }

    pub(crate) fn add(&mut self, piece: &Bytes) {
        self.room = self.room.and_then(|room| room.checked_sub(piece.len()));
        if self.room.is_some() {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }

    /// Stores the response once it is complete.
    pub(crate) fn keep(self) {
        if self.room.is_none() {
            return;
        }
        // Copied, so that the cache does not hold a connection's larger buffer.
        let mut body = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
        for piece in &self.pieces {
            body.extend_from_slice(piece);
        }
        let reply = HttpReply {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
        };
        self.memory.remember(&self.request, &reply);
    }
}
