//! Liveness of one connection: when a message came last, and since when one is owed.
//!
//! MCP-4: time alone hangs no server. It only decides when the server is asked for a sign of life.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::audience::HangSuspect;
use crate::lock::LockExt as _;

/// Time without a message after which an idle server is asked for a sign of life.
const IDLE: Duration = Duration::from_secs(20);
/// Time for which an answer may be owed, without a limit in the settings.
pub(super) const OWED: Duration = Duration::from_secs(60);
/// The longest limit that an attempt has here; no clock reaches further.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Number of the longest limits after which a server that speaks, and answers nothing, is asked.
const UNANSWERED: u32 = 3;
/// Maximum number of calls by which a server may hang, by fingerprint.
const MAX_SUSPECTS: usize = 256;
/// Limits of the wait for a sign of life.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Liveness of a connection.
#[derive(Debug)]
pub(super) struct Liveness {
    limit: Option<NonZeroU32>,
    silence: Mutex<SilenceState>,
    changed: Notify,
    /// The protocol violation that ended the connection, if any.
    violation: Mutex<Option<String>>,
    /// True if the process reads its input no more.
    closed_input: AtomicBool,
    end: watch::Sender<ConnectionEnd>,
    /// True once the output of the process was read to its end.
    is_read: watch::Sender<bool>,
    /// The reason for the end of the incarnation, once declared.
    over: watch::Sender<Option<String>>,
}

struct SilenceState {
    heard: Instant,
    /// Begin of the time in which an answer was owed and nothing came.
    owed: Option<Instant>,
    /// Begin of the time in which an answer was owed and none came, though other messages may have.
    unanswered: Option<Instant>,
    /// Limits of the attempts in flight.
    limits: Vec<Duration>,
    /// The longest limit of those that have ended while nothing came: their answers are owed too.
    longest_abandoned: Option<Duration>,
    /// Limit of the latest attempt.
    latest_limit: Option<Duration>,
    /// The calls in flight, and those that have ended without an answer since the last answer, by
    /// fingerprint.
    suspects: BTreeMap<u64, SuspectedCall>,
}

/// A call by which the server may hang, with the number of those in flight.
type SuspectedCall = (HangSuspect, usize);

impl fmt::Debug for SilenceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SilenceState")
            .field("owed", &self.owed)
            .finish_non_exhaustive()
    }
}

impl SilenceState {
    /// Returns the longest limit of the attempts to which an answer is owed.
    fn longest(&self) -> Option<Duration> {
        self.limits
            .iter()
            .copied()
            .max()
            .max(self.longest_abandoned)
    }
}

/// A sign of life for which a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedSign {
    /// A message of any kind.
    Message,
    /// An answer: the server speaks, and has answered nothing for long.
    Answer,
}

/// End of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ConnectionEnd {
    /// It has not ended.
    #[default]
    None,
    /// The server hangs.
    Hung,
    /// It is closed.
    Closed,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Liveness {
    /// Creates the liveness of a connection that begins now. `limit`: number of questions that may
    /// stay unanswered.
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self {
            limit,
            silence: Mutex::new(SilenceState {
                heard: Instant::now(),
                owed: None,
                unanswered: None,
                limits: Vec::new(),
                longest_abandoned: None,
                latest_limit: None,
                suspects: BTreeMap::new(),
            }),
            changed: Notify::new(),
            violation: Mutex::default(),
            closed_input: AtomicBool::new(false),
            end: watch::Sender::default(),
            is_read: watch::Sender::default(),
            over: watch::Sender::default(),
        }
    }

    /// Notes an answer of the server, or another sign that it works on a call.
    pub(super) fn answered(&self) {
        {
            let mut silence = self.silence.acquire();
            silence.unanswered = (!silence.limits.is_empty()).then(Instant::now);
            // SUP-6: the server has worked on after those that have ended.
            silence.suspects.retain(|_, (_, in_flight)| *in_flight > 0);
        }
        self.heard();
    }

    /// Notes a message of the server. It may come from a part of the program that answers no calls.
    pub(super) fn heard(&self) {
        let now = Instant::now();
        let mut silence = self.silence.acquire();
        silence.heard = now;
        silence.owed = (!silence.limits.is_empty()).then_some(now);
        silence.longest_abandoned = None;
    }

    /// Returns true if this sign of life has come since then.
    pub(super) fn has_given(&self, sign: WantedSign, since: Instant) -> bool {
        let silence = self.silence.acquire();
        match sign {
            WantedSign::Message => silence.heard >= since,
            WantedSign::Answer => silence.unanswered.is_none_or(|begin| begin >= since),
        }
    }

    /// Notes a call that goes out, with the limit of its attempt. Returns the limit that counts here.
    pub(super) fn called(&self, attempt: Duration) -> Duration {
        let limit = attempt.min(LONGEST);
        let mut silence = self.silence.acquire();
        silence.limits.push(limit);
        silence.latest_limit = Some(limit);
        silence.unanswered.get_or_insert_with(Instant::now);
        if silence.owed.is_none() {
            silence.owed = Some(Instant::now());
            silence.longest_abandoned = None;
            drop(silence);
            self.changed.notify_one();
        }
        limit
    }

    /// Notes a call that goes out, as one by which the server may hang.
    pub(super) fn suspect(&self, suspect: &HangSuspect) {
        let mut silence = self.silence.acquire();
        let suspects = &mut silence.suspects;
        // CALL-6: nothing is unbounded.
        if suspects.len() < MAX_SUSPECTS || suspects.contains_key(&suspect.fingerprint) {
            let new = || (suspect.clone(), 0);
            suspects.entry(suspect.fingerprint).or_insert_with(new).1 += 1;
        }
    }

    /// Notes the end of such a call. One that was not answered stays a suspect until another one is answered.
    pub(super) fn ended_suspect(&self, suspect: &HangSuspect, is_answered: bool) {
        let mut silence = self.silence.acquire();
        if let Entry::Occupied(mut own) = silence.suspects.entry(suspect.fingerprint) {
            let in_flight = &mut own.get_mut().1;
            *in_flight = in_flight.saturating_sub(1);
            if is_answered && *in_flight == 0 {
                own.remove();
            }
        }
    }

    /// Notes the end of a call with this limit. An answer that was never given stays owed until a
    /// message comes.
    pub(super) fn ended_call(&self, limit: Duration, is_answered: bool) {
        let mut silence = self.silence.acquire();
        let before = silence.longest();
        if let Some(place) = silence.limits.iter().position(|own| *own == limit) {
            silence.limits.swap_remove(place);
        }
        if !is_answered {
            // MCP-4: the server may still be busy with it.
            silence.longest_abandoned = silence.longest_abandoned.max(Some(limit));
        } else if silence.limits.is_empty() {
            (silence.owed, silence.unanswered) = (None, None);
        }
        let is_shorter = silence.owed.is_some() && silence.longest() < before;
        drop(silence);
        if is_shorter {
            // The next question is due earlier.
            self.changed.notify_one();
        }
    }

    /// Returns the time of the next question, and the sign of life that it is for. `idle`: the
    /// connection is asked while nothing is owed.
    fn next_question(&self, idle: bool) -> Option<(Instant, WantedSign)> {
        let silence = self.silence.acquire();
        let longest = silence.longest();
        let silent = match silence.owed {
            // MCP-4: a busy server is given the time of the longest attempt in flight.
            Some(since) => Some(since + longest.unwrap_or(OWED)),
            None => idle.then_some(silence.heard + IDLE),
        };
        let silent = silent.map(|due| (due, WantedSign::Message));
        // MCP-4: words are no answer. A program may tell its log from a thread of its own for ever.
        let limit = longest.or(silence.latest_limit).unwrap_or(OWED).max(OWED);
        let long = limit.saturating_mul(UNANSWERED).min(LONGEST);
        let unanswered = silence.unanswered.map(|since| since + long);
        let unanswered = unanswered.map(|due| (due, WantedSign::Answer));
        silent.into_iter().chain(unanswered).min_by_key(|due| due.0)
    }

    /// Waits until the server has to be asked for a sign of life.
    pub(super) async fn until_question(&self, idle: bool) -> WantedSign {
        loop {
            let changed = self.changed.notified();
            match self.next_question(idle) {
                Some((due, sign)) if due <= Instant::now() => return sign,
                Some((due, _)) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Returns the limit of the wait for a sign of life.
    pub(super) fn patience(&self) -> Duration {
        let (least, most) = PATIENCE;
        let latest = self.silence.acquire().latest_limit;
        latest.unwrap_or(most).clamp(least, most)
    }

    /// Returns the number of questions that may stay unanswered; `None`: any number.
    pub(super) fn limit(&self) -> Option<NonZeroU32> {
        self.limit
    }

    /// Ends the connection of a server that hangs.
    pub(super) fn hang(&self) {
        let suspects = std::mem::take(&mut self.silence.acquire().suspects);
        // SUP-6: a call ends by its time before a hang shows. Those in flight are noted with the end.
        for (suspect, _) in suspects.values().filter(|(_, in_flight)| *in_flight == 0) {
            suspect.note();
        }
        self.end_as(ConnectionEnd::Hung);
    }

    /// Ends the connection, and stores the protocol violation, if any.
    pub(super) fn close(&self, violation: Option<String>) {
        if let Some(violation) = violation {
            *self.violation.acquire() = Some(violation);
        }
        self.end_as(ConnectionEnd::Closed);
    }

    /// Ends the connection of a process that reads its input no more.
    pub(super) fn close_input(&self) {
        self.closed_input.store(true, Ordering::Release);
        self.end_as(ConnectionEnd::Closed);
    }

    pub(super) fn has_closed_input(&self) -> bool {
        self.closed_input.load(Ordering::Acquire)
    }

    /// Sets the end, unless one is set already.
    fn end_as(&self, end: ConnectionEnd) {
        self.end.send_if_modified(|now| {
            let first = *now == ConnectionEnd::None;
            if first {
                *now = end;
            }
            first
        });
    }

    pub(super) fn end(&self) -> ConnectionEnd {
        *self.end.borrow()
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) -> ConnectionEnd {
        let mut end = self.end.subscribe();
        let end = end.wait_for(|end| *end != ConnectionEnd::None).await;
        let end = end.map(|end| *end);
        match end {
            Ok(end) => end,
            // Unreachable: `self` owns the sender.
            Err(_) => std::future::pending().await,
        }
    }

    /// Notes that the output of the process was read to its end.
    pub(super) fn note_read(&self) {
        self.is_read.send_replace(true);
    }

    /// Waits until the output of the process was read to its end.
    pub(super) async fn until_read(&self) {
        let mut read = self.is_read.subscribe();
        // `self` owns the sender.
        let _ = read.wait_for(|is_read| *is_read).await;
    }

    /// Declares the incarnation over, and wakes its callers in the same turn.
    pub(super) fn declare_over(&self, why: &str) {
        self.over.send_replace(Some(why.to_owned()));
    }

    /// Waits until the incarnation is declared over, and returns the reason. A caller that learned
    /// of it earlier would call again at once, and find no server.
    pub(super) async fn over(&self) -> Option<String> {
        let mut over = self.over.subscribe();
        let over = over.wait_for(Option::is_some).await;
        over.ok().and_then(|over| over.clone())
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.violation.acquire().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    async fn asked_after(liveness: &Liveness) -> Duration {
        let began = Instant::now();
        liveness.until_question(true).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_m4_an_idle_server_is_asked_and_a_busy_one_has_its_time() {
        let liveness = Liveness::new(None);
        assert_eq!(asked_after(&liveness).await, IDLE);
        liveness.heard();
        liveness.called(LIMIT);
        assert_eq!(asked_after(&liveness).await, LIMIT);
        // A message of any kind begins the time anew.
        liveness.heard();
        assert_eq!(asked_after(&liveness).await, LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_a_server_that_speaks_and_answers_nothing_is_asked_for_an_answer() {
        let liveness = Liveness::new(None);
        let began = Instant::now();
        let speaking = async {
            for _ in 0..1000 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                liveness.heard();
            }
        };
        let asked = async {
            // Its callers come and go.
            liveness.ended_call(liveness.called(LIMIT), false);
            liveness.until_question(true).await
        };
        let sign = tokio::select! {
            () = speaking => panic!("it is not asked"),
            sign = asked => sign,
        };
        assert_eq!(sign, WantedSign::Answer);
        assert_eq!(began.elapsed(), UNANSWERED * OWED);
        // An answer begins the time anew, and ends it if nothing else is owed.
        liveness.answered();
        assert_eq!(asked_after(&liveness).await, IDLE);
    }

    #[tokio::test]
    async fn sup_6_m16_a_hang_is_blamed_on_the_calls_since_the_last_sign_of_life() {
        let liveness = Liveness::new(None);
        let noted = std::sync::Arc::new(Mutex::new(Vec::new()));
        let suspect = |fingerprint: u64| {
            let noted = std::sync::Arc::clone(&noted);
            HangSuspect::new(fingerprint, move || noted.acquire().push(fingerprint))
        };
        let begin = |fingerprint: u64| liveness.suspect(&suspect(fingerprint));
        let end = |fingerprint: u64, is_answered| {
            liveness.ended_suspect(&suspect(fingerprint), is_answered);
        };
        for (fingerprint, is_answered) in [(1, false), (2, true)] {
            begin(fingerprint);
            end(fingerprint, is_answered);
        }
        begin(3);
        // One part of the program may speak while the other one hangs.
        liveness.heard();
        assert!(liveness.silence.acquire().suspects.contains_key(&1));
        liveness.answered();
        // Both calls of the third kind end late; of the fifth kind, another one is in flight.
        begin(3);
        end(3, false);
        end(3, false);
        begin(4);
        end(4, true);
        begin(5);
        begin(5);
        end(5, false);
        for fingerprint in 10..1000 {
            begin(fingerprint);
        }
        assert_eq!(liveness.silence.acquire().suspects.len(), MAX_SUSPECTS);
        liveness.hang();
        assert_eq!(*noted.acquire(), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_an_attempt_may_be_as_long_as_it_likes() {
        let liveness = Liveness::new(None);
        let limit = liveness.called(Duration::MAX);
        assert_eq!(asked_after(&liveness).await, LONGEST);
        liveness.heard();
        liveness.ended_call(limit, true);
        assert_eq!(asked_after(&liveness).await, IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_m4_a_caller_that_leaves_early_does_not_shorten_the_time() {
        let liveness = Liveness::new(None);
        let limit = liveness.called(LIMIT);
        tokio::time::advance(Duration::from_secs(1)).await;
        liveness.ended_call(limit, false);
        let limit = liveness.called(LIMIT);
        liveness.ended_call(limit, false);
        assert_eq!(asked_after(&liveness).await, LIMIT - Duration::from_secs(1));
        liveness.heard();
        assert_eq!(asked_after(&liveness).await, IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_the_longest_attempt_in_flight_is_the_time_of_a_busy_server() {
        let liveness = Liveness::new(None);
        let long = liveness.called(5 * LIMIT);
        let short = liveness.called(LIMIT);
        assert_eq!(asked_after(&liveness).await, 5 * LIMIT);
        // A caller that leaves does not end the server's work for it.
        liveness.heard();
        liveness.ended_call(long, false);
        liveness.ended_call(short, false);
        assert_eq!(asked_after(&liveness).await, 5 * LIMIT);
        // After an answer, the time is that of the others, also for who waits for it already.
        liveness.heard();
        let long = liveness.called(5 * LIMIT);
        let _short = liveness.called(LIMIT);
        let asked = asked_after(&liveness);
        let answer = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            liveness.heard();
            liveness.ended_call(long, true);
        };
        let (asked, ()) = tokio::join!(asked, answer);
        assert_eq!(asked, LIMIT + Duration::from_secs(1));
    }
}
