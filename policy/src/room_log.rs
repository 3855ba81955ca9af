//! The bound of a refund: the least room that a bucket had since the reservation.
//!
//! Time refills a bucket while an attempt runs. A unit that was refilled up to the brim cannot be given
//! back once more. The log knows no time and no bucket; its owner tells it the room.

use std::collections::VecDeque;

/// Maximum number of spans with a room of their own: more than a model has calls at a time by default.
const MAX_SPANS: usize = 1024;

/// The least room that the bucket had at any time since a reservation. It bounds the refund of that
/// reservation: what would have run over is lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomLog {
    /// From the oldest to the newest; later ones had more room.
    spans: VecDeque<RoomSpan>,
}

/// The reservations from a number on, until the next span begins.
#[derive(Debug, Clone, Copy)]
struct RoomSpan {
    first: u64,
    least: i128,
}

impl RoomLog {
    /// Records the room at a moment at which the bucket is fullest: before it changes.
    pub(crate) fn observe(&mut self, room: i128) {
        let mut first = None;
        while let Some(span) = self.spans.back().filter(|span| span.least >= room) {
            first = Some(span.first);
            self.spans.pop_back();
        }
        let merged = first.map(|first| RoomSpan { first, least: room });
        self.spans.extend(merged);
    }

    /// Begins a span with a reservation.
    pub(crate) fn begin(&mut self, first: u64, room: i128) {
        self.spans.push_back(RoomSpan { first, least: room });
        if self.spans.len() > MAX_SPANS {
            // The span before it had less room, and takes over its reservations.
            self.spans.remove(1);
        }
    }

    /// Takes a refund of at most so many parts; returns the parts that it is worth.
    pub(crate) fn take(&mut self, sequence: u64, parts: i128) -> i128 {
        let after = self.spans.partition_point(|span| span.first <= sequence);
        let least = after.checked_sub(1).map_or(0, |at| self.spans[at].least);
        let worth = parts.min(least).max(0);
        for span in &mut self.spans {
            // With the refund, the bucket would have been that much fuller since then.
            span.least -= worth;
        }
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llm_19_a_thousand_spans_have_a_room_of_their_own() {
        let mut log = RoomLog::default();
        let most = u64::try_from(MAX_SPANS).unwrap();
        for sequence in 0..most {
            log.begin(sequence, i128::from(sequence));
        }
        assert_eq!(log.spans.len(), MAX_SPANS);
        log.begin(most, i128::from(most));
        assert_eq!(log.spans.len(), MAX_SPANS);
        assert_eq!(
            log.take(1, 10),
            0,
            "the second one has the first one's room"
        );
        assert_eq!(log.take(2, 10), 2);
    }
}
