//! State of a pool, as operators see it: the members that would take a call now, and what callers of
//! the members get.

use std::time::Duration;

use super::route::HttpRoute;
use crate::policy::{OverrideMode, State};
use crate::{Health, KeyStatus};

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
    /// Its health for this pool: that of the dependency; down also if it would take no call now, and
    /// degraded if it would take those of some models only.
    pub health: Health,
    takes_calls: bool,
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
    /// member that would take a call and is not down.
    #[must_use]
    pub fn health(&self) -> Health {
        // LLM-22: ok, degraded, or down.
        let Some(next) = self.next() else {
            let reason = "no member takes calls".to_owned();
            return Health::Down { reason };
        };
        let mut takers = self.members.iter().filter(|member| member.takes_calls);
        // HLT-1: callers get errors of each member that is asked.
        if takers.all(|member| matches!(member.health, Health::Down { .. })) {
            let reason = next.told();
            return Health::Down { reason };
        }
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
            Some(member) if member.name == next.name => {
                let reason = member.told();
                Health::Degraded { reason }
            }
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
        self.takes_calls
    }

    /// Returns its health with its name.
    fn told(&self) -> String {
        match &self.health {
            Health::Ok => format!("{} is ok", self.name),
            Health::Degraded { reason } => format!("{} is degraded: {reason}", self.name),
            Health::Down { reason } => format!("{} is down: {reason}", self.name),
        }
    }

    pub(super) fn of(member: &HttpRoute) -> Self {
        let status = member.client.status();
        let (lack, retry_after) = lack_of(member, &status.keys);
        let takes_calls = !matches!(lack, Health::Down { .. });
        // HLT-1: it is what its callers get, also where it would take further calls.
        let health = match (lack, status.health) {
            (lack @ Health::Down { .. }, _) | (lack, Health::Ok) => lack,
            (Health::Degraded { reason }, Health::Degraded { .. }) => Health::Degraded { reason },
            (_, health) => health,
        };
        Self {
            name: member.name.to_string(),
            health,
            takes_calls,
            retry_after: retry_after.filter(|_| !takes_calls),
            in_flight: member.client.in_flight(),
        }
    }
}

/// Returns down for a member that would take no call now, and degraded for one that would take those
/// of some models only; with the time until it would take one, if it is known.
fn lack_of(member: &HttpRoute, keys: &[KeyStatus]) -> (Health, Option<Duration>) {
    let readiness = member.client.readiness(None);
    if readiness.available == 0 {
        let obstacle = readiness.kept_back_by;
        let reason = obstacle.map_or_else(String::new, |obstacle| obstacle.to_string());
        return (Health::Down { reason }, readiness.retry_after);
    }
    // LLM-18: each model has a breaker and a pause of its own.
    let mut refused = Vec::new();
    let mut soonest: Option<Duration> = None;
    for key in keys {
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
    let lack = match refused.len() {
        0 => Health::Ok,
        all if all == keys.len() => Health::Down { reason: reason() },
        _ => Health::Degraded { reason: reason() },
    };
    (lack, soonest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Health {
        let reason = "100 % of 20 calls got errors".to_owned();
        Health::Down { reason }
    }

    fn member(name: &str, health: Health, takes_calls: bool) -> PoolMember {
        PoolMember {
            name: name.to_owned(),
            health,
            takes_calls,
            retry_after: None,
            in_flight: 0,
        }
    }

    fn pool(members: Vec<PoolMember>) -> PoolStatus {
        PoolStatus {
            name: "pool".to_owned(),
            is_ordered: true,
            members,
        }
    }

    #[test]
    fn hlt_1_a_pool_is_down_if_all_its_members_answer_with_errors() {
        let sick = pool(vec![member("a", down(), true), member("b", down(), true)]);
        let reason = "a is down: 100 % of 20 calls got errors".to_owned();
        assert_eq!(sick.health(), Health::Down { reason });
        assert_eq!(sick.next().map(|next| &*next.name), Some("a"));
    }

    #[test]
    fn llm_22_a_pool_with_a_well_member_is_degraded_and_says_why() {
        let told = |health, takes_calls| {
            let all = vec![
                member("a", health, takes_calls),
                member("b", Health::Ok, true),
            ];
            pool(all).health().to_string()
        };
        assert_eq!(told(down(), false), "degraded: b takes the calls of a");
        let errors = "degraded: a is down: 100 % of 20 calls got errors";
        assert_eq!(told(down(), true), errors);
        assert_eq!(told(Health::Ok, true), "ok");
    }
}
