//! Quarantine of calls that crash workers repeatedly.
//!
//! It stores fingerprints, never requests, and a bounded number of them (rule SUP-6).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::sync::LockExt;
use breakerbox_policy::{QuarantineSettings, Time};

/// Fingerprints of the calls that crashed workers recently.
#[derive(Debug)]
pub(crate) struct Quarantine {
    settings: QuarantineSettings,
    /// Oldest first, at most `max_entries`.
    suspects: Mutex<VecDeque<CrashRecord>>,
    /// True if an answer could clear one of them, so that the mutex is not locked in vain.
    has_uncertain: AtomicBool,
    /// Time at which a call was suspected last that its worker does not have any more, in
    /// nanoseconds; 0 for never.
    other_at: AtomicU64,
}

#[derive(Debug)]
struct CrashRecord {
    fingerprint: u64,
    crashes: u32,
    last: Time,
    /// True if other calls were in flight at each crash: an answer then clears it.
    is_uncertain: bool,
}

impl Quarantine {
    pub(crate) fn new(settings: QuarantineSettings) -> Self {
        Self {
            settings,
            suspects: Mutex::new(VecDeque::new()),
            has_uncertain: AtomicBool::new(false),
            other_at: AtomicU64::new(0),
        }
    }

    /// Returns the time for which this fingerprint is still refused, if it is.
    pub(crate) fn refuses(&self, fingerprint: u64, now: Time) -> Option<Duration> {
        let suspects = self.suspects.acquire();
        let suspect = suspects.iter().find(|one| one.fingerprint == fingerprint)?;
        let until = suspect.last.after(self.settings.ttl);
        let refused = suspect.crashes >= self.settings.crashes.get() && now < until;
        refused.then(|| until.since(now))
    }

    /// Records a crash. Returns the time for which the fingerprint is refused if this crash reached
    /// the limit.
    pub(crate) fn note(&self, fingerprint: u64, now: Time) -> Option<Duration> {
        self.record(fingerprint, false, now)
    }

    /// Records that the value of a worker ended itself while this call was in flight, alone or
    /// beside others. Returns as [`Quarantine::note`].
    pub(crate) fn suspect(&self, fingerprint: u64, is_alone: bool, now: Time) -> Option<Duration> {
        self.record(fingerprint, !is_alone, now)
    }

    /// Records that the value of a worker ends after this call, which the worker does not have any more. Returns
    /// as [`Quarantine::note`].
    pub(crate) fn suspect_other(&self, fingerprint: u64, now: Time) -> Option<Duration> {
        self.other_at.store(now.as_nanos(), Ordering::Relaxed);
        self.record(fingerprint, true, now)
    }

    /// Returns true if such a call was recorded during the life of a value that has begun at `begun`, and
    /// forgets it: it speaks at one end.
    pub(crate) fn take_other(&self, begun: Time) -> bool {
        // SUP-6: a record that came after the end of a value says nothing about the end of the next one.
        self.other_at.swap(0, Ordering::Relaxed) > begun.as_nanos()
    }

    /// Forgets the suspicion against a call that was answered, unless it was alone at a crash.
    pub(crate) fn clear(&self, fingerprint: u64) {
        if !self.has_uncertain.load(Ordering::Relaxed) {
            return;
        }
        let mut suspects = self.suspects.acquire();
        suspects.retain(|one| one.fingerprint != fingerprint || !one.is_uncertain);
        let is_left = suspects.iter().any(|one| one.is_uncertain);
        self.has_uncertain.store(is_left, Ordering::Relaxed);
    }

    fn record(&self, fingerprint: u64, is_uncertain: bool, now: Time) -> Option<Duration> {
        let ttl = self.settings.ttl;
        let mut suspects = self.suspects.acquire();
        let before = suspects
            .iter()
            .position(|one| one.fingerprint == fingerprint)
            .and_then(|index| suspects.remove(index))
            .filter(|one| now.since(one.last) < ttl);
        let is_uncertain = is_uncertain && before.as_ref().is_none_or(|one| one.is_uncertain);
        let crashes = before.map_or(1, |one| one.crashes.saturating_add(1));
        if suspects.len() >= usize::try_from(self.settings.max_entries.get()).unwrap_or(usize::MAX)
        {
            suspects.pop_front();
        }
        suspects.push_back(CrashRecord {
            fingerprint,
            crashes,
            last: now,
            is_uncertain,
        });
        if is_uncertain {
            self.has_uncertain.store(true, Ordering::Relaxed);
        }
        (crashes == self.settings.crashes.get()).then_some(ttl)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn quarantine(crashes: u32, max_entries: u32) -> Quarantine {
        Quarantine::new(QuarantineSettings {
            crashes: NonZeroU32::new(crashes).unwrap(),
            ttl: Duration::from_secs(60),
            max_entries: NonZeroU32::new(max_entries).unwrap(),
        })
    }

    #[test]
    fn sup_6_the_second_crash_quarantines_until_its_ttl_is_over() {
        let quarantine = quarantine(2, 8);
        let at = Time::from_millis;
        assert_eq!(quarantine.note(7, at(0)), None);
        assert_eq!(quarantine.refuses(7, at(1)), None);
        assert!(quarantine.note(7, at(1_000)).is_some());
        assert_eq!(
            quarantine.refuses(7, at(60_999)),
            Some(Duration::from_millis(1))
        );
        assert_eq!(quarantine.refuses(7, at(61_000)), None);
        assert_eq!(quarantine.refuses(8, at(1_000)), None);
    }

    #[test]
    fn mcp_1_m16_an_answer_clears_a_call_that_was_one_of_several_and_no_other() {
        let quarantine = quarantine(2, 8);
        let at = Time::from_millis;
        for crash in [0, 1000] {
            assert_eq!(quarantine.suspect(7, false, at(crash)), None);
            quarantine.clear(7);
        }
        assert_eq!(quarantine.suspect(8, true, at(2000)), None);
        quarantine.clear(8);
        assert!(quarantine.suspect(8, false, at(3000)).is_some());
        quarantine.clear(8);
        assert!(quarantine.refuses(8, at(3000)).is_some());
        assert_eq!(quarantine.refuses(7, at(3000)), None);
    }

    #[test]
    fn sup_6_a_call_that_is_suspected_after_the_end_of_a_value_says_nothing_about_the_next_one() {
        let quarantine = quarantine(2, 8);
        let at = Time::from_millis;
        assert!(!quarantine.take_other(at(0)));
        assert_eq!(quarantine.suspect_other(7, at(1_000)), None);
        assert!(!quarantine.take_other(at(1_500)), "it began later");
        quarantine.suspect_other(8, at(2_000));
        assert!(quarantine.take_other(at(1_500)));
        assert!(!quarantine.take_other(at(1_500)), "it has spoken");
    }

    #[test]
    fn sup_6_the_table_is_bounded_and_forgets_the_oldest() {
        let quarantine = quarantine(1, 2);
        for fingerprint in 0..3 {
            quarantine.note(fingerprint, Time::ZERO);
        }
        assert_eq!(quarantine.refuses(0, Time::ZERO), None);
        assert!(quarantine.refuses(1, Time::ZERO).is_some());
        assert!(quarantine.refuses(2, Time::ZERO).is_some());
    }
}
