//! Random histories, compared with a simple reference.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// A call arrives: by the fast path first, as calls do, or as a waiter at once.
    Ask(Ticket, bool),
    /// A running call ends.
    Leave(prop::sample::Index),
    /// A waiter is polled.
    Look(prop::sample::Index),
    /// A waiter is dropped.
    Go(prop::sample::Index),
    Resize(BulkheadSettings),
}

fn bounds() -> impl Strategy<Value = BulkheadSettings> {
    let writes = prop::option::of(1..4_u32);
    (1..5_u32, writes, 0..4_u32).prop_map(|(places, writes, seats)| BulkheadSettings {
        max_concurrent_writes: writes.and_then(NonZeroU32::new),
        ..settings(places, seats)
    })
}

fn op() -> impl Strategy<Value = Op> {
    let priority = prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
    let ticket = (priority, any::<bool>());
    let ticket = ticket.prop_map(|(priority, write)| Ticket { priority, write });
    prop_oneof![
        6 => (ticket, any::<bool>()).prop_map(|(ticket, quick)| Op::Ask(ticket, quick)),
        4 => any::<prop::sample::Index>().prop_map(Op::Leave),
        2 => any::<prop::sample::Index>().prop_map(Op::Look),
        1 => any::<prop::sample::Index>().prop_map(Op::Go),
        1 => bounds().prop_map(Op::Resize),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Runs,
    Waits,
    Refused,
}

/// All callers, in order of arrival.
struct Reference {
    bounds: BulkheadSettings,
    all: Vec<(u32, Ticket, Fate)>,
}

impl Reference {
    fn count(&self, wanted: impl Fn(Ticket, Fate) -> bool) -> u32 {
        let all = self.all.iter();
        u32::try_from(
            all.filter(|(_, ticket, fate)| wanted(*ticket, *fate))
                .count(),
        )
        .unwrap()
    }

    fn running(&self) -> u32 {
        self.count(|_, fate| fate == Fate::Runs)
    }

    fn writes(&self) -> u32 {
        self.count(|ticket, fate| fate == Fate::Runs && ticket.write)
    }

    fn waiting(&self) -> u32 {
        self.count(|_, fate| fate == Fate::Waits)
    }

    fn fits(&self, ticket: Ticket) -> bool {
        let writes = self.bounds.max_concurrent_writes;
        self.running() < self.bounds.max_concurrent.get()
            && (!ticket.write || writes.is_none_or(|most| self.writes() < most.get()))
    }

    fn ask(&mut self, name: u32, ticket: Ticket) {
        let mut fate = Fate::Refused;
        if self.fits(ticket) {
            fate = Fate::Runs;
        } else if self.waiting() < self.bounds.max_queue {
            fate = Fate::Waits;
        } else {
            let lower = self.all.iter_mut().rev();
            let lower = lower.filter(|(_, other, fate)| {
                *fate == Fate::Waits && other.priority < ticket.priority
            });
            // The first of equals in reverse order of arrival, so the youngest.
            if let Some((_, _, shed)) = lower.min_by_key(|(_, other, _)| other.priority) {
                *shed = Fate::Refused;
                fate = Fate::Waits;
            }
        }
        self.all.push((name, ticket, fate));
    }

    fn remove(&mut self, name: u32) {
        self.all.retain(|(other, _, _)| *other != name);
        self.let_in();
    }

    fn let_in(&mut self) {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            for index in 0..self.all.len() {
                let (_, ticket, fate) = self.all[index];
                if ticket.priority == priority && fate == Fate::Waits && self.fits(ticket) {
                    self.all[index].2 = Fate::Runs;
                }
            }
        }
    }

    fn fate(&self, name: u32) -> Fate {
        let found = self.all.iter().find(|(other, _, _)| *other == name);
        found.expect("it is there").2
    }
}

fn look<'a>(seat: &mut Seated<'a>, expected: Fate) -> Option<BulkheadSlot<'a>> {
    match (poll(seat), expected) {
        (Poll::Ready(Ok(place)), Fate::Runs) => Some(place),
        (Poll::Ready(Err(NoSlot::Overloaded(_))), Fate::Refused) | (Poll::Pending, Fate::Waits) => {
            None
        }
        (got, expected) => panic!("{got:?} instead of {expected:?}"),
    }
}

/// Runs a history on both; panics if they differ.
fn replay(first: BulkheadSettings, history: Vec<Op>) {
    let bulkhead = Bulkhead::new(&first);
    let mut reference = Reference {
        bounds: first,
        all: Vec::new(),
    };
    let mut inside: Vec<(u32, BulkheadSlot<'_>)> = Vec::new();
    let mut outside: Vec<(u32, Seated<'_>)> = Vec::new();
    for (name, op) in (0..).zip(history) {
        match op {
            Op::Ask(ticket, quick) => {
                reference.ask(name, ticket);
                let place = quick.then(|| enter(&bulkhead, ticket)).flatten();
                let mut seat = Box::pin(bulkhead.pool.wait(ticket));
                match place.or_else(|| look(&mut seat, reference.fate(name))) {
                    Some(place) => inside.push((name, place)),
                    None if reference.fate(name) == Fate::Waits => outside.push((name, seat)),
                    None => reference.remove(name),
                }
            }
            Op::Leave(index) if !inside.is_empty() => {
                let (name, _) = inside.remove(index.index(inside.len()));
                reference.remove(name);
            }
            Op::Look(index) if !outside.is_empty() => {
                let (name, mut seat) = outside.remove(index.index(outside.len()));
                match (look(&mut seat, reference.fate(name)), reference.fate(name)) {
                    (Some(place), _) => inside.push((name, place)),
                    (None, Fate::Waits) => outside.push((name, seat)),
                    (None, _) => reference.remove(name),
                }
            }
            Op::Go(index) if !outside.is_empty() => {
                let (name, _) = outside.remove(index.index(outside.len()));
                reference.remove(name);
            }
            Op::Resize(bounds) => {
                bulkhead.resize(&bounds);
                reference.bounds = bounds;
                reference.let_in();
            }
            Op::Leave(_) | Op::Look(_) | Op::Go(_) => {}
        }
        assert_eq!(bulkhead.in_flight(), reference.running());
        assert_eq!(bulkhead.writes(), reference.writes());
        assert_eq!(bulkhead.queued(), reference.waiting());
    }
    for (name, mut seat) in outside {
        drop(look(&mut seat, reference.fate(name)));
        drop(seat);
        reference.remove(name);
    }
    drop(inside);
    bulkhead.pool.reclaim();
    assert_eq!(bulkhead.pool.counts(), (0, 0));
    assert!(bulkhead.pool.lock().shed.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn call_6_places_and_seats_go_to_whom_a_simple_list_gives_them(
        first in bounds(),
        history in prop::collection::vec(op(), 0..80),
    ) {
        replay(first, history);
    }
}
