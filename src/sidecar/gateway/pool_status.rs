//! State of a pool, as operators see it: the members that would take a call now.

use std::time::Duration;

use super::route::HttpRoute;
use crate::Health;
use crate::policy::{OverrideMode, State};

/// A pool with its members. It has no breaker and no figures of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// True if its members are asked in their order, so that the first one is its first choice.
    pub is_ordered: bool,
    /// Its members, in the order of the configuration.
    pub members: Vec<PoolMember>,
}

/// A member of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMember {
    /// The dependency.
    pub name: String,
    /// Its health for this pool: down if it would take no call now, degraded if it would take those of
    /// some models only.
    pub health: Health,
    /// Time until it would take a call, if it would take none and the time is known.
    pub retry_after: Option<Duration>,
    /// Number of its calls in flight.
    pub in_flight: u32,
}

impl PoolStatus {
    /// Returns the member that would be asked first now.
    #[must_use]
    pub fn next(&self) -> Option<&PoolMember> {
        let mut takers = self.members.iter().filter(|member| member.takes_calls());
        match self.is_ordered {
            true => takers.next(),
            false => takers.min_by_key(|member| member.in_flight),
        }
    }

    /// Returns the health of the pool: degraded while it has not its first choice, down without any
    /// member that would take a call.
    #[must_use]
    pub fn health(&self) -> Health {
        // LLM-22: ok, degraded, or down.
        let Some(next) = self.next() else {
            let reason = "no member takes calls".to_owned();
            return Health::Down { reason };
        };
        let first = match self.is_ordered {
            true => self.members.first().into_iter(),
            false => self
                .members
                .iter()
                .find(|one| one.health != Health::Ok)
                .into_iter(),
        };
        let mut sick = first.filter(|member| member.health != Health::Ok);
        match sick.next() {
            None => Health::Ok,
            Some(member) => Health::Degraded {
                reason: format!("{} takes the calls of {}", next.name, member.name),
            },
        }
    }
}

impl PoolMember {
    /// Returns true if it would take a call now, of one model at least.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        !matches!(self.health, Health::Down { .. })
    }

    pub(super) fn of(member: &HttpRoute) -> Self {
        let name = member.name.to_string();
        let in_flight = member.client.in_flight();
        let readiness = member.client.readiness(None);
        if readiness.available == 0 {
            let obstacle = readiness.kept_back_by;
            let reason = obstacle.map_or_else(String::new, |obstacle| obstacle.to_string());
            return Self {
                name,
                health: Health::Down { reason },
                retry_after: readiness.retry_after,
                in_flight,
            };
        }
        // LLM-18: each model has a breaker and a pause of its own.
        let keys = member.client.status().keys;
        let mut refused = Vec::new();
        let mut soonest: Option<Duration> = None;
        for key in &keys {
            let is_open = match key.overridden.as_ref().map(|order| order.mode) {
                Some(mode) => mode == OverrideMode::ForcedOpen,
                None => key.state == State::Open,
            };
            let pause = key.paused.map(|(_, left)| left);
            if !is_open && pause.is_none() {
                continue;
            }
            refused.push(key.key.as_str());
            let wait = pause.max(key.retry_after);
            soonest = match (soonest, wait) {
                (Some(least), Some(wait)) => Some(least.min(wait)),
                (least, wait) => least.or(wait),
            };
        }
        let reason = || format!("it takes no calls of {}", refused.join(", "));
        let health = match refused.len() {
            0 => Health::Ok,
            all if all == keys.len() => Health::Down { reason: reason() },
            _ => Health::Degraded { reason: reason() },
        };
        Self {
            name,
            retry_after: soonest.filter(|_| matches!(health, Health::Down { .. })),
            health,
            in_flight,
        }
    }
}
