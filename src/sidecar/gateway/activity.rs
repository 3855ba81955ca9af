//! The activity of a connection's caller, from which its time limits follow.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// Time that a connection has to end after a graceful shutdown before it is cut.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Time limits for slow callers.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallerLimits {
    pub(super) head: Duration,
    pub(super) send: Duration,
    pub(super) idle: Duration,
}

/// Activity of a connection's caller.
#[derive(Debug)]
pub(super) struct CallerActivity {
    patience: CallerLimits,
    /// Requests without a finished response.
    pub(super) in_flight: Cell<u32>,
    /// Start of the time without a request in flight, or of reading a head.
    pub(super) since: Cell<Instant>,
    pub(super) reading: Cell<bool>,
    /// The part of a head's first line that has come.
    line: Cell<FirstLine>,
    /// True if the target of the present head has a fragment, which hyper drops.
    pub(super) has_fragment: Cell<bool>,
    /// On HTTP/2, bytes between requests are not necessarily a request head.
    pub(super) is_http2: Cell<bool>,
    /// Start of the time in which the socket accepts no bytes.
    pub(super) blocked: Cell<Option<Instant>>,
    /// True if a response was sent before its request was fully read.
    pub(super) unread: Cell<bool>,
    /// When the response was finished while the request body was still arriving.
    pub(super) said: Cell<Option<Instant>>,
    untaken: RefCell<Vec<UntakenBody>>,
    next: Cell<u64>,
}

/// A response body that the connection does not poll.
#[derive(Debug)]
struct UntakenBody {
    /// The number of its request.
    number: u64,
    /// The time when it was last polled.
    since: Instant,
    /// The end of its call.
    until: Option<Instant>,
}

/// Progress of the first line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstLine {
    Before,
    Within,
    Over,
}

/// Action to take when the timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimerAction {
    Look,
    Close,
    Cut,
}

impl CallerActivity {
    pub(super) fn new(patience: CallerLimits) -> Self {
        Self {
            patience,
            in_flight: Cell::new(0),
            since: Cell::new(Instant::now()),
            reading: Cell::new(true),
            line: Cell::new(FirstLine::Before),
            has_fragment: Cell::new(false),
            is_http2: Cell::new(false),
            blocked: Cell::new(None),
            unread: Cell::new(false),
            said: Cell::new(None),
            untaken: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// Notes bytes of a head, or of what follows it. `is_new`: a head begins with them.
    pub(super) fn read(&self, bytes: &[u8], is_new: bool) {
        if is_new {
            self.line.set(FirstLine::Before);
        }
        let mut bytes = bytes;
        if self.line.get() == FirstLine::Before {
            let skipped = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
            let Some(skipped) = skipped else { return };
            bytes = &bytes[skipped..];
            self.line.set(FirstLine::Within);
        }
        if self.line.get() == FirstLine::Within {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            if bytes[..end.unwrap_or(bytes.len())].contains(&b'#') {
                self.has_fragment.set(true);
            }
            if end.is_some() {
                self.line.set(FirstLine::Over);
            }
        }
    }

    /// Returns the next deadline and its action, unless the caller makes progress before.
    pub(super) fn due(&self) -> (Instant, TimerAction) {
        if let Some(since) = self.said.get() {
            return (since + GRACE, TimerAction::Cut);
        }
        let CallerLimits { head, send, idle } = self.patience;
        let untaken = self.untaken.borrow();
        let oldest = untaken.iter().map(|body| body.since).min();
        if let Some(since) = oldest.into_iter().chain(self.blocked.get()).min() {
            // EDGE-4: a connection by HTTP/2 has other streams, which are not to end with one.
            let ends = untaken.iter().filter_map(|body| body.until);
            let end = ends.filter(|_| !self.is_http2.get()).min();
            let due = end.map_or(since + send, |end| end.min(since + send));
            return (due, TimerAction::Cut);
        }
        if self.in_flight.get() > 0 {
            return (Instant::now() + send, TimerAction::Look);
        }
        let limit = if self.reading.get() { head } else { idle };
        (self.since.get() + limit, TimerAction::Close)
    }
}

/// A request in flight, as its connection's timer sees it.
#[derive(Debug)]
pub(super) struct RequestActivity {
    activity: Rc<CallerActivity>,
    number: u64,
    given: bool,
    /// The end of the call, if it has one.
    pub(super) until: Option<Instant>,
}

impl RequestActivity {
    pub(super) fn new(activity: &Rc<CallerActivity>) -> Self {
        let number = activity.next.get();
        activity.next.set(number.wrapping_add(1));
        activity.in_flight.set(activity.in_flight.get() + 1);
        activity.reading.set(false);
        Self {
            activity: Rc::clone(activity),
            number,
            given: false,
            until: None,
        }
    }

    /// Records that the connection polls for the next piece.
    pub(super) fn asked(&mut self) {
        if std::mem::take(&mut self.given) {
            let mut untaken = self.activity.untaken.borrow_mut();
            untaken.retain(|body| body.number != self.number);
        }
    }

    /// Records that a piece was handed to the connection.
    pub(super) fn given(&mut self) {
        self.given = true;
        let body = UntakenBody {
            number: self.number,
            since: Instant::now(),
            until: self.until,
        };
        self.activity.untaken.borrow_mut().push(body);
    }
}

impl Drop for RequestActivity {
    fn drop(&mut self) {
        self.asked();
        let activity = &self.activity;
        activity.in_flight.set(activity.in_flight.get() - 1);
        if activity.in_flight.get() == 0 {
            activity.since.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6f_a_body_that_is_not_taken_ends_with_its_call() {
        let limits = CallerLimits {
            head: GRACE,
            send: 30 * GRACE,
            idle: GRACE,
        };
        let now = Instant::now();
        for (is_http2, until, expected) in [
            (false, None, 30),
            (false, Some(2), 2),
            (false, Some(60), 30),
            (true, Some(2), 30),
        ] {
            let activity = Rc::new(CallerActivity::new(limits));
            activity.is_http2.set(is_http2);
            let mut request = RequestActivity::new(&activity);
            request.until = until.map(|seconds| now + seconds * GRACE);
            let looks = || activity.due().1 == TimerAction::Look;
            assert!(looks(), "it waits for the dependency");
            request.given();
            assert_eq!(activity.due(), (now + expected * GRACE, TimerAction::Cut));
            request.asked();
            assert!(looks(), "the caller has taken it");
        }
    }

    #[tokio::test]
    async fn edge_3_f18_a_fragment_is_seen_in_the_first_line_alone() {
        let limits = CallerLimits {
            head: GRACE,
            send: GRACE,
            idle: GRACE,
        };
        for (pieces, has_fragment) in [
            (&["GET /a#b HTTP/1.1\r\n"][..], true),
            (&["\r\n", "GET /", "a#b HTTP/1.1\r\n"], true),
            (&["GET /a HTTP/1.1\r\nx: #\r\n"], false),
            (&["GET /a HTTP/1.1\r\n", "x: #\r\n"], false),
        ] {
            let activity = CallerActivity::new(limits);
            for piece in pieces {
                activity.read(piece.as_bytes(), false);
            }
            assert_eq!(activity.has_fragment.get(), has_fragment, "{pieces:?}");
            activity.has_fragment.set(false);
            activity.read(b"GET /c#d", true);
            assert!(activity.has_fragment.get(), "of the next request");
        }
    }
}
