//! What one call goes by, looked up once when it is made.
//!
//! A reload in the middle of a call changes nothing of it but how long it waits between attempts.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Ticket, Time};

use super::CallOptions;
use crate::circuit::Circuit;
use crate::deadline;
use crate::dependency::{Dependency, Shared};
use crate::session::Session;

/// One call's own terms.
pub(crate) struct Plan<'a> {
    pub(super) started: Time,
    /// When it must be over, fallbacks left out.
    pub(super) deadline: Option<Time>,
    /// When whoever made it wants to have heard, of a fallback too.
    pub(super) callers: Option<Time>,
    pub(super) max_attempts: u32,
    /// How long one attempt may take.
    pub(super) attempt: Option<Duration>,
    /// Whether it is hedged; only what is idempotent is (rule CALL-7).
    pub(super) is_hedged: bool,
    /// Whether it may go past the breaker when nobody could answer it.
    pub(super) last_resort: bool,
    pub(super) idempotent: bool,
    pub(super) fingerprint: Option<u64>,
    /// The breaker of its key; `None` for the dependency's.
    pub(super) circuit: Option<Arc<Circuit>>,
    pub(super) ticket: Ticket,
    pub(super) weight: NonZeroU32,
    pub(super) session: Option<&'a Session>,
}

impl<'a> Plan<'a> {
    /// The terms of a request to a worker: what the options leave open, the dependency says.
    pub(super) fn of_request<D: Dependency>(
        shared: &Shared,
        options: &'a CallOptions,
        request: &D::Request,
    ) -> Self {
        let idempotent = options.idempotent;
        let fingerprint = options.fingerprint.or_else(|| D::fingerprint(request));
        let weight = options.weight.unwrap_or_else(|| D::weight(request));
        let write = options.write.unwrap_or_else(|| D::is_write(request));
        let has_key = options.key.is_some();
        let mut plan = Self::looked_up(shared, options);
        if !has_key && let Some(key) = D::key(request) {
            plan.circuit = shared.circuit_of(&key, plan.started);
        }
        plan.idempotent = idempotent.unwrap_or_else(|| {
            (plan.max_attempts > 1 || plan.is_hedged) && D::is_idempotent(request)
        });
        plan.is_hedged &= plan.idempotent;
        plan.ticket.write = write;
        Self {
            fingerprint,
            weight,
            ..plan
        }
    }

    /// The terms of a closure, of which only the options tell.
    #[inline(always)]
    pub(super) fn of_closure(shared: &Shared, options: &'a CallOptions) -> Self {
        let mut plan = Self::looked_up(shared, options);
        plan.is_hedged &= plan.idempotent;
        plan
    }

    #[inline(always)]
    fn looked_up(shared: &Shared, options: &'a CallOptions) -> Self {
        let CallOptions {
            timeout,
            idempotent,
            fingerprint,
            priority,
            write,
            key,
            weight,
            session,
        } = options;
        let started = shared.clock.now();
        let circuit = key.as_ref();
        let circuit = circuit.and_then(|key| shared.circuit_of(key, started));
        let terms = shared.terms();
        let total = terms.total.map(|span| started.after(span));
        let own = timeout.map(|span| started.after(span));
        let callers = least(own, deadline::around(&shared.clock));
        Self {
            started,
            deadline: least(total, callers),
            callers,
            max_attempts: terms.max_attempts,
            attempt: terms.attempt,
            is_hedged: terms.is_hedged,
            last_resort: terms.last_resort,
            idempotent: idempotent.unwrap_or(false),
            fingerprint: *fingerprint,
            circuit,
            ticket: Ticket {
                priority: *priority,
                write: write.unwrap_or(false),
            },
            weight: weight.unwrap_or(NonZeroU32::MIN),
            session: session.as_ref(),
        }
    }

    /// When an attempt that begins now must be over.
    pub(super) fn attempt_ends(&self, began: Time) -> Option<Time> {
        least(self.attempt.map(|span| began.after(span)), self.deadline)
    }
}

/// The smaller one of those that are there.
pub(crate) fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
