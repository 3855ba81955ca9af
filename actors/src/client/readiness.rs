//! Readiness for calls, for programs that fetch work before they make a call of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{State, Time};

use super::Client;
use crate::breaker::gate::GateMode;
use crate::breaker::gate_decision::{deciding_gate, refusing_gate};
use crate::breaker::shared::SharedBreaker;
use crate::dependency::Dependency;
use crate::state::{Route, Shared};

/// Interval at which a waiting program looks again.
const LOOK: Duration = Duration::from_millis(20);

/// Time after which another look is worth it, where nothing says how long a lack lasts: places are
/// given back, and a probe reports, when calls end.
const SOON: Duration = Duration::from_millis(250);

/// Readiness of a dependency for calls at one moment. It reserves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// Number of calls that could begin now.
    pub available: u32,
    /// Time until one could begin, if none could now and the time is known.
    pub retry_after: Option<Duration>,
    /// The layer that keeps calls back, if none could begin now.
    pub kept_back_by: Option<ReadinessObstacle>,
    /// True if a call that begins now is a probe of a breaker that is not closed.
    pub is_trial: bool,
}

/// The layer that keeps calls of a dependency back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadinessObstacle {
    /// No worker takes calls: parked, drained, or replaced by the fallbacks.
    NoWorker,
    /// The actor that makes the calls has ended.
    NoActor,
    /// The breaker is open, or half-open without a free probe.
    Breaker,
    /// The dependency asked for a pause.
    Pause,
    /// Calls wait at the rate limit.
    RateLimit,
    /// All slots of the bulkhead are taken.
    Bulkhead,
}

impl fmt::Display for ReadinessObstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoWorker => "no worker takes calls",
            Self::NoActor => "the actor that makes its calls has ended",
            Self::Breaker => "its breaker is open, or waits for its probes",
            Self::Pause => "it asked for a pause",
            Self::RateLimit => "calls wait at its rate limit (rate_limit)",
            Self::Bulkhead => "all its slots are taken (bulkhead.max_concurrent)",
        })
    }
}

impl Readiness {
    fn not_before(obstacle: ReadinessObstacle, retry_after: Option<Duration>) -> Self {
        Self {
            available: 0,
            retry_after,
            kept_back_by: Some(obstacle),
            is_trial: false,
        }
    }

    /// The readiness of a dependency that is not there: no worker takes calls.
    #[must_use]
    pub fn of_none() -> Self {
        Self::not_before(ReadinessObstacle::NoWorker, None)
    }

    /// The readiness for messages of an actor that has ended.
    pub(crate) fn without_actor() -> Self {
        Self::not_before(ReadinessObstacle::NoActor, None)
    }

    fn of(shared: &Shared, key: Option<&str>) -> Self {
        // MSG-10: it asks each layer, takes nothing, and is no call.
        let now = shared.clock.now();
        if shared.route() != Route::Workers {
            return Self::not_before(ReadinessObstacle::NoWorker, None);
        }
        let key_breaker = key.and_then(|key| shared.keys.find(key));
        if let Some(gate) = refusing_gate(shared, key_breaker.as_ref()) {
            return Self::not_before(ReadinessObstacle::Breaker, gate.retry_after());
        }
        if let Some(pause) = shared.pauses_of(key_breaker.as_deref()).current(now) {
            let left = pause.until.since(now);
            return Self::not_before(ReadinessObstacle::Pause, Some(left));
        }
        let rate = shared.rate.read(Arc::clone);
        if rate
            .as_ref()
            .as_ref()
            .is_some_and(|rate| rate.is_waited_for())
        {
            return Self::not_before(ReadinessObstacle::RateLimit, Some(SOON));
        }
        let bulkhead = &shared.bulkhead;
        let taken = bulkhead.in_flight().saturating_add(bulkhead.queued());
        let (of, word) = deciding_gate(shared, key_breaker.as_ref());
        let is_trial = matches!(word.mode(), GateMode::Open | GateMode::HalfOpen);
        let permits = match is_trial {
            true => free_probes(of, now),
            false => u32::MAX,
        };
        let available = bulkhead.limit(now).saturating_sub(taken).min(permits);
        let obstacle = match permits {
            0 => ReadinessObstacle::Breaker,
            _ => ReadinessObstacle::Bulkhead,
        };
        Self {
            available,
            retry_after: (available == 0).then_some(SOON),
            kept_back_by: (available == 0).then_some(obstacle),
            is_trial,
        }
    }
}

/// Number of probes that a breaker would admit after its open time.
fn free_probes(of: &SharedBreaker, now: Time) -> u32 {
    let machine = of.lock();
    // MSG-1: one message is in hand already, and has asked for the lease.
    if machine.awaits_lease(now) {
        return 0;
    }
    let max = machine.settings().half_open.max_calls.get();
    let in_flight = match (machine.state(), machine.view(now).half_open) {
        (State::HalfOpen, Some(half_open)) => half_open.in_flight,
        _ => 0,
    };
    max.saturating_sub(u32::try_from(in_flight).unwrap_or(u32::MAX))
}

impl<D: Dependency> Client<D> {
    /// Returns whether calls could begin now: by the breaker, the pause, the calls that wait at the
    /// rate limit, and the bulkhead. `key`: as in [`CallOptions::key`](crate::CallOptions::key).
    ///
    /// # Source  Rule MSG-10 in docs/rules.md.
    #[must_use]
    pub fn readiness(&self, key: Option<&str>) -> Readiness {
        Readiness::of(&self.core.shared, key)
    }

    /// Waits until a call could begin, for up to `wait`, and returns the readiness at that moment.
    ///
    /// A consumer of a queue waits here before it fetches a message, so that it fetches none that
    /// would be refused. Another caller may be faster: nothing is reserved.
    ///
    /// # Cancel safety   A dropped future leaves nothing behind.
    /// # Source  Rule MSG-10 in docs/rules.md.
    pub async fn ready(&self, key: Option<&str>, wait: Duration) -> Readiness {
        let clock = &self.core.shared.clock;
        let end = clock.now().after(wait);
        loop {
            let readiness = self.readiness(key);
            let now = clock.now();
            if readiness.available > 0 || now >= end {
                return readiness;
            }
            clock.sleep_until(now.after(LOOK).min(end)).await;
        }
    }
}
