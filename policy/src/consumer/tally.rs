//! The books of a consumer: each message that it fetched is in exactly one column.

use super::{DeadReason, ReturnReason};

/// Number of messages of a consumer by their fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MessageTally {
    /// Deliveries that it has fetched.
    pub fetched: u64,
    /// Those among them that were not the first of their message.
    pub redelivered: u64,
    /// Deliveries that ended with an answer.
    pub answered: u64,
    /// Deliveries with an open fate.
    pub in_flight: u64,
    dead: [u64; DeadReason::ALL.len()],
    returned: [u64; ReturnReason::ALL.len()],
}

impl MessageTally {
    /// Counts a delivery. `is_first`: the first one of its message.
    pub fn fetch(&mut self, is_first: bool) {
        self.fetched += 1;
        self.redelivered += u64::from(!is_first);
        self.in_flight += 1;
    }

    /// Counts an answer.
    pub fn answer(&mut self) {
        self.answered += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Counts a dead letter.
    pub fn dead_letter(&mut self, reason: DeadReason) {
        self.dead[reason as usize] += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Counts a message that was given back.
    pub fn give_back(&mut self, reason: ReturnReason) {
        self.returned[reason as usize] += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Returns the number of dead letters for this reason.
    #[must_use]
    pub fn dead(&self, reason: DeadReason) -> u64 {
        self.dead[reason as usize]
    }

    /// Returns the number of messages that were given back for this reason.
    #[must_use]
    pub fn returned(&self, reason: ReturnReason) -> u64 {
        self.returned[reason as usize]
    }

    /// Returns the number of all dead letters.
    #[must_use]
    pub fn all_dead(&self) -> u64 {
        self.dead.iter().sum()
    }

    /// Returns the number of all messages that were given back.
    #[must_use]
    pub fn all_returned(&self) -> u64 {
        self.returned.iter().sum()
    }

    /// Returns true if each fetched message is in exactly one column.
    ///
    /// # Source  Rule MSG-3 in docs/rules.md.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        // MSG-3: fetched = answered + dead letters + given back + in flight.
        self.fetched == self.answered + self.all_dead() + self.all_returned() + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_3_each_fetched_message_is_in_the_column_of_its_fate() {
        let mut books = MessageTally::default();
        for (at, reason) in (1..).zip(DeadReason::ALL) {
            for _ in 0..at {
                books.fetch(true);
                books.dead_letter(reason);
            }
            assert_eq!(books.dead(reason), at, "{reason}");
        }
        for (at, reason) in (1..).zip(ReturnReason::ALL) {
            for _ in 0..at {
                books.fetch(false);
                books.give_back(reason);
            }
            assert_eq!(books.returned(reason), at, "{reason:?}");
        }
        assert_eq!((books.all_dead(), books.all_returned()), (28, 15));
        assert_eq!((books.fetched, books.redelivered), (43, 15));
        books.fetch(true);
        books.fetch(false);
        books.answer();
        assert_eq!((books.answered, books.in_flight), (1, 1));
        assert!(books.adds_up());
        books.answered += 1;
        assert!(!books.adds_up());
    }
}
