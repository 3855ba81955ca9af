//! The part of a body that is read before its head is passed on.
//!
//! Nothing is lost or reordered: its pieces come first, then the rest of the body.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::sidecar::gateway::http::pool::PooledBody;

/// End of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// It has come whole.
    Whole,
    /// It broke off.
    Broken,
}

/// The pieces that were read ahead.
pub(super) struct ReadAhead {
    pub(super) pieces: VecDeque<Bytes>,
    length: usize,
    /// The end of the body, once it was read to there.
    pub(super) end: Option<BodyEnd>,
    pub(super) share: BufferShare,
}

impl ReadAhead {
    pub(super) fn new(budget: &BufferBudget) -> Self {
        Self {
            pieces: VecDeque::new(),
            length: 0,
            end: None,
            share: budget.share(),
        }
    }

    /// Reads the next piece. Returns `None` at the end of the body, above `most` bytes, and where the
    /// process has no memory for more.
    ///
    /// # Cancel safety   Dropped, it loses nothing.
    pub(super) async fn next(&mut self, body: &mut PooledBody, most: usize) -> Option<Bytes> {
        while self.end.is_none() && self.length < most && self.share.grow_to(self.length) {
            if body.is_end_stream() {
                self.end = Some(BodyEnd::Whole);
                break;
            }
            match body.frame().await {
                None => self.end = Some(BodyEnd::Whole),
                Some(Err(_)) => self.end = Some(BodyEnd::Broken),
                Some(Ok(frame)) => {
                    // No API of models has trailers; HTTP/2 may end a stream by an empty frame.
                    if let Ok(piece) = frame.into_data()
                        && !piece.is_empty()
                    {
                        self.length += piece.len();
                        self.pieces.push_back(piece.clone());
                        return Some(piece);
                    }
                }
            }
        }
        None
    }

    /// Returns all that was read, in one piece.
    pub(super) fn joined(&self) -> Bytes {
        match self.pieces.len() {
            0 => Bytes::new(),
            1 => self.pieces[0].clone(),
            _ => {
                let mut whole = Vec::with_capacity(self.length);
                self.pieces
                    .iter()
                    .for_each(|piece| whole.extend_from_slice(piece));
                Bytes::from(whole)
            }
        }
    }
}
