//! The layers that limit a call besides the breaker. None of them knows the shared state.

pub(crate) mod bulkhead;

pub(crate) mod chaos;

pub(crate) mod metered;

pub(crate) mod pause;

pub(crate) mod quarantine;

pub(crate) mod rate;

pub(crate) mod session;
