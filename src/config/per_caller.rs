//! The section `gateway.per_caller`.

use std::num::NonZeroU32;

use super::section::Section;
use super::value_type::count;

/// Limits of one caller of the gateway. A caller is an IP address; of IPv6, a network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PerCallerConfig {
    /// Maximum number of calls in flight; `None` for no limit.
    pub places: Option<NonZeroU32>,
    /// Maximum number of new keys a second; `None` for no limit.
    pub keys: Option<NonZeroU32>,
    /// Maximum number of connections; `None` for no limit.
    pub connections: Option<NonZeroU32>,
}

impl PerCallerConfig {
    /// Returns the default for a gateway with so many connections.
    fn default_of(is_loopback: bool, max_connections: NonZeroU32) -> Self {
        // On a loopback address all callers have the same one.
        let quarter = NonZeroU32::new(max_connections.get() / 4).unwrap_or(NonZeroU32::MIN);
        Self {
            connections: (!is_loopback).then_some(quarter),
            ..Self::default()
        }
    }
}

/// Reads `gateway.per_caller`. `keys_are_obeyed`: by `gateway.trust`.
pub(super) fn read(
    gateway: &mut Section<'_>,
    (is_loopback, keys_are_obeyed): (bool, bool),
    max_connections: NonZeroU32,
) -> PerCallerConfig {
    let Some(mut section) = gateway.section_or_off("per_caller") else {
        return PerCallerConfig::default();
    };
    let default = PerCallerConfig::default_of(is_loopback, max_connections);
    let number = count(1_000_000).or_off();
    let settings = PerCallerConfig {
        places: section.get_or("places", &number, default.places),
        keys: section.get_or("keys", &number, default.keys),
        connections: section.get_or("connections", &number, default.connections),
    };
    if settings.keys.is_some() && !keys_are_obeyed {
        let text = "it has no effect: gateway.trust does not name \"key\"";
        section.warn("keys", text.to_owned());
    }
    let is_above = |most: NonZeroU32| most > max_connections;
    if settings.connections.is_some_and(is_above) {
        let text = "it has no effect: gateway.max_connections is less";
        section.warn("connections", text.to_owned());
    }
    section.finish();
    settings
}
