//! The bounded history of events, and what leaves it first.
//!
//! It decides by the kinds of events alone, and drops nothing before it is full.

use std::collections::VecDeque;
use std::sync::Arc;

use breakerbox_policy::{BreakerCause, BreakerEvent, PauseReason, State};

use super::{EVENT_HISTORY, Event, EventKind, OPERATOR_EVENT_HISTORY};

/// The events that late readers can see.
#[derive(Debug, Default)]
pub(super) struct EventHistory {
    /// The latest events.
    latest: VecDeque<Event>,
    /// Number of minor events among them: without one, no room is looked for.
    minor: usize,
    /// Operators' events, and begins of outages that last, that there is no room for any more. All of
    /// them are older than those of `latest`.
    older: VecDeque<Event>,
    /// The begins of outages that last.
    begins: Vec<OutageBegin>,
}

/// The event that began an outage.
#[derive(Debug)]
struct OutageBegin {
    id: u64,
    subject: Arc<str>,
    end: OutageEnd,
}

impl EventHistory {
    /// Keeps an event, and drops another one if there is no room.
    pub(super) fn keep(&mut self, event: Event) {
        self.note_outage(&event);
        if self.latest.len() >= EVENT_HISTORY {
            self.make_room();
        }
        self.minor += usize::from(is_minor(&event.kind));
        self.latest.push_back(event);
    }

    /// Returns the events with an id above `after`, oldest first.
    pub(super) fn since(&self, after: u64) -> Vec<Event> {
        let all = self.older.iter().chain(&self.latest);
        all.filter(|event| event.id > after).cloned().collect()
    }

    fn make_room(&mut self) {
        // HLT-2: the probes of a long outage do not push out what began it, nor other events.
        if self.minor > 0 {
            let repeated = self.latest.iter().position(|event| is_minor(&event.kind));
            self.latest.remove(repeated.unwrap_or(0));
            self.minor -= 1;
            return;
        }
        let Some(oldest) = self.latest.pop_front() else {
            return;
        };
        // EDGE-4: events that callers cause cannot push an operator's out of the history.
        if !oldest.kind.is_operational() && !self.is_begin(&oldest) {
            return;
        }
        if self.older.len() >= OPERATOR_EVENT_HISTORY {
            // HLT-2: what began an outage that lasts stays.
            let over = self.older.iter().position(|event| !self.is_begin(event));
            self.older.remove(over.unwrap_or(0));
        }
        self.older.push_back(oldest);
    }

    fn is_begin(&self, event: &Event) -> bool {
        self.begins.iter().any(|begin| begin.id == event.id)
    }

    /// Notes the begins and ends of outages.
    fn note_outage(&mut self, event: &Event) {
        let subject = &event.subject;
        self.begins.retain(|begin| {
            let is_removed = matches!(event.kind, EventKind::Removed { .. })
                && is_part_of(&begin.subject, subject);
            let is_over = begin.subject == *subject && begin.end.is(&event.kind);
            !is_removed && !is_over
        });
        // The keys of callers are without number.
        if subject.contains('[') {
            return;
        }
        let Some(end) = OutageEnd::of(&event.kind) else {
            return;
        };
        let is_known = |begin: &OutageBegin| begin.subject == *subject && begin.end == end;
        if !self.begins.iter().any(is_known) {
            self.begins.push(OutageBegin {
                id: event.id,
                subject: Arc::clone(subject),
                end,
            });
        }
    }
}

/// Returns true if a subject is the dependency, or a child of it.
fn is_part_of(subject: &str, dependency: &str) -> bool {
    let rest = subject.strip_prefix(dependency);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The kind of event that ends an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutageEnd {
    Closed,
    Started,
    SetRight,
    QuotaBack,
    ErrorsOver,
    NoAnswersOver,
}

impl OutageEnd {
    /// Returns the end of an outage that begins with an event of this kind; `None` if it begins none.
    fn of(begin: &EventKind) -> Option<Self> {
        match begin {
            EventKind::Breaker(BreakerEvent::Transition {
                from: State::Closed,
                to: State::Open,
                ..
            }) => Some(Self::Closed),
            EventKind::Parked { .. } => Some(Self::Started),
            EventKind::Misconfigured { .. } => Some(Self::SetRight),
            EventKind::Paused {
                reason: PauseReason::QuotaUsedUp,
                ..
            } => Some(Self::QuotaBack),
            EventKind::ErrorShare { .. } => Some(Self::ErrorsOver),
            EventKind::NoAnswers { .. } => Some(Self::NoAnswersOver),
            _ => None,
        }
    }

    fn is(self, kind: &EventKind) -> bool {
        match self {
            Self::Closed => matches!(
                kind,
                EventKind::Breaker(BreakerEvent::Transition {
                    to: State::Closed,
                    ..
                })
            ),
            Self::Started => matches!(kind, EventKind::Started { .. }),
            Self::SetRight => matches!(kind, EventKind::SetRight),
            Self::QuotaBack => matches!(kind, EventKind::QuotaBack),
            Self::ErrorsOver => matches!(kind, EventKind::ErrorsOver),
            Self::NoAnswersOver => matches!(kind, EventKind::NoAnswersOver),
        }
    }
}

/// Returns true for events that tell little by themselves: probes of an outage, and first starts.
fn is_minor(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Started { incarnation: 1 }) || kind.is_probe()
}

impl EventKind {
    /// Returns true for an event of a probe that does not end its outage: a breaker becomes half-open,
    /// a probe succeeds but does not suffice, or one fails.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        match self {
            Self::Breaker(BreakerEvent::HalfOpenProgress { .. }) => true,
            Self::Breaker(BreakerEvent::Transition {
                from, to, cause, ..
            }) => match (from, to) {
                (State::Open, State::HalfOpen) => {
                    matches!(
                        cause,
                        BreakerCause::OpenTimeOver | BreakerCause::LeaseGranted
                    )
                }
                (State::HalfOpen, State::Open) => matches!(cause, BreakerCause::Tripped { .. }),
                _ => false,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use breakerbox_policy::{Time, TripReason, WindowCounts};

    use super::*;

    fn event(id: u64, subject: &str, kind: EventKind) -> Event {
        Event {
            id,
            at: Time::from_millis(id),
            subject: Arc::from(subject),
            kind,
        }
    }

    fn moved(from: State, to: State) -> EventKind {
        let cause = match (from, to) {
            (State::Open, State::HalfOpen) => BreakerCause::OpenTimeOver,
            (_, State::Open) => BreakerCause::Tripped {
                reason: TripReason::ProbeFailed,
                last_failure: None,
            },
            _ => BreakerCause::Recovered { successes: 1 },
        };
        EventKind::Breaker(BreakerEvent::Transition {
            from,
            to,
            at: Time::ZERO,
            generation: 1,
            cause,
            retry_after: None,
            counts: WindowCounts::default(),
        })
    }

    fn ids(history: &EventHistory) -> Vec<u64> {
        history.since(0).iter().map(|event| event.id).collect()
    }

    #[test]
    fn hlt_2_probes_leave_the_history_before_all_else() {
        let mut history = EventHistory::default();
        history.keep(event(1, "web", moved(State::Closed, State::Open)));
        history.keep(event(2, "db", EventKind::SetRight));
        for pair in 0..2_000 {
            let id = 3 + pair * 2;
            history.keep(event(id, "web", moved(State::Open, State::HalfOpen)));
            history.keep(event(id + 1, "web", moved(State::HalfOpen, State::Open)));
        }
        let kept = ids(&history);
        assert_eq!(kept.len(), EVENT_HISTORY);
        assert_eq!(&kept[..2], [1, 2]);
        assert_eq!(kept.last(), Some(&4_002));
    }

    #[test]
    fn hlt_2_each_of_several_probes_leaves_before_all_else() {
        let mut history = EventHistory::default();
        history.keep(event(1, "db", EventKind::SetRight));
        for id in 2..=4 {
            history.keep(event(id, "web", moved(State::Open, State::HalfOpen)));
        }
        for id in 5..=EVENT_HISTORY as u64 + 3 {
            history.keep(event(id, "db", EventKind::SetRight));
        }
        assert_eq!(
            &ids(&history)[..2],
            [1, 5],
            "three events too many, three probes"
        );
        history.keep(event(9_999, "db", EventKind::SetRight));
        assert_eq!(ids(&history)[0], 5, "without a probe the oldest leaves");
    }

    #[test]
    fn hlt_2_what_began_an_outage_stays_until_its_end() {
        let mut history = EventHistory::default();
        history.keep(event(1, "web", moved(State::Closed, State::Open)));
        let mut id = 1;
        let mut more = |history: &mut EventHistory, kind: &EventKind| {
            for _ in 0..2 * (EVENT_HISTORY + OPERATOR_EVENT_HISTORY) {
                id += 1;
                history.keep(event(id, "db", kind.clone()));
            }
        };
        more(&mut history, &EventKind::SetRight);
        assert_eq!(ids(&history)[0], 1, "among events of callers");
        more(&mut history, &EventKind::Draining);
        assert_eq!(ids(&history)[0], 1, "among events of operators");
        history.keep(event(100_000, "web", moved(State::HalfOpen, State::Closed)));
        more(&mut history, &EventKind::Draining);
        assert_ne!(ids(&history)[0], 1, "it is over");
    }

    #[test]
    fn hlt_2_a_removed_dependency_has_no_outage() {
        let mut history = EventHistory::default();
        history.keep(event(1, "web", moved(State::Closed, State::Open)));
        history.keep(event(2, "web[key]", moved(State::Closed, State::Open)));
        assert_eq!(history.begins.len(), 1, "no key of a caller has a place");
        history.keep(event(3, "webs", EventKind::Removed { by: String::new() }));
        assert_eq!(history.begins.len(), 1);
        history.keep(event(4, "web", EventKind::Removed { by: String::new() }));
        assert!(history.begins.is_empty());
    }
}
