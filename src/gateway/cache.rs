//! The last good answers of an HTTP dependency: which of them are kept, and what tells them apart.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, RANGE, SET_COOKIE, VARY};
use http::{HeaderMap, StatusCode};

use breakerbox_policy::Time;

use super::dependency::{Http, HttpReply, HttpRequest};
use super::failure::HttpError;
use crate::{CallError, Client, Fallback, FallbackFuture, StaleCache, Turn};

/// Which answers are kept.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) max_body: usize,
    /// The request headers that make two requests different.
    pub(super) headers: Vec<HeaderName>,
}

impl Rules {
    /// Whether an answer with this head may be kept: a whole, good one to a reading request, that
    /// nobody forbade to keep, and that differs by nothing but what requests are told apart by.
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
pub(super) struct Kept {
    cache: StaleCache<Http>,
    rules: Rules,
}

impl Kept {
    pub(super) fn new(max_age: Duration, max_entries: usize, refresh: bool, rules: Rules) -> Self {
        let cache = StaleCache::new(max_age, max_entries).refresh(refresh);
        Self { cache, rules }
    }
}

impl Fallback<Http> for Kept {
    fn name(&self) -> &str {
        Fallback::<Http>::name(&self.cache)
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
            // They are of one caller and of one moment.
            for name in [SET_COOKIE, AGE, CONTENT_LENGTH] {
                reply.headers.remove(name);
            }
            self.cache.remember(&request, &reply, now);
        }
    }

    fn turn_to_renew(&self, request: &HttpRequest) -> Option<Turn> {
        self.cache
            .turn_to_renew(&request.keyed(&self.rules.headers))
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(out)
    }
}

/// An answer that is gathered while it is passed on.
pub(super) struct Keeping {
    client: Client<Http>,
    request: HttpRequest,
    status: StatusCode,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    /// How much may still come; `None` once it was too much.
    room: Option<usize>,
}

impl Keeping {
    /// Begins with the head; `None` where no cache would take it.
    pub(super) fn begin(
        client: &Client<Http>,
        caches: &[Rules],
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
            client: client.clone(),
            request: request.clone(),
            status,
            headers: headers.clone(),
            pieces: Vec::new(),
            room: Some(room),
        })
    }

    pub(super) fn add(&mut self, piece: &Bytes) {
        self.room = self.room.and_then(|room| room.checked_sub(piece.len()));
        if self.room.is_some() {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }

    /// Hands it over when all of it has come.
    pub(super) fn keep(self) {
        if self.room.is_none() {
            return;
        }
        // Copied, so that no larger buffer of a connection is held for it.
        let mut body = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
        for piece in &self.pieces {
            body.extend_from_slice(piece);
        }
        let reply = HttpReply {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
        };
        self.client.remember(&self.request, &reply);
    }
}
