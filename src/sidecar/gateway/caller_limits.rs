//! Limits of one caller: its connections, its calls in flight, and its new keys.
//!
//! A caller is an address, since nothing else is known before a request is answered. The table has
//! an entry for each address with a connection, and for few others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::request::Parts;
use tokio::time::Instant;

use crate::lock::LockExt as _;

/// Time in which a caller may use as many new keys as its limit says.
const KEY_WINDOW: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about refused connections.
const QUIET: Duration = Duration::from_secs(60);
/// Number of entries from which those without a connection are looked for and removed.
const FEW: usize = 1024;

/// An address as callers are told apart: IPv4, or a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CallerAddress(u64, bool);

impl CallerAddress {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits()), false),
            // A caller has at least a network of 64 bits to itself.
            IpAddr::V6(address) => {
                let network = u64::try_from(address.to_bits() >> 64);
                Self(network.unwrap_or_default(), true)
            }
        }
    }
}

/// Returns the number of a caller, by which calls that it gives up are told from those of others.
pub(super) fn caller_number(address: IpAddr) -> NonZeroU64 {
    let CallerAddress(number, is_network) = CallerAddress::of(address);
    // The addresses of IPv4 have 32 bits.
    let kind = if is_network { 0 } else { 1 << 32 };
    NonZeroU64::new(number | kind).unwrap_or(NonZeroU64::MIN)
}

/// The number of the caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallerNumber(NonZeroU64);

impl CallerNumber {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(caller_number(address))
    }

    /// Returns the number of the caller, as far as the request tells it.
    pub(crate) fn of_request(head: &Parts) -> Option<Self> {
        head.extensions.get().copied()
    }
}

/// The callers with a connection, shared by the threads of the gateway.
#[derive(Debug, Default)]
pub(super) struct CallerTable {
    callers: Mutex<HashMap<CallerAddress, CallerEntry>>,
    refusals: Mutex<RefusedConnections>,
}

#[derive(Debug, Default)]
struct CallerEntry {
    usage: Arc<CallerUsage>,
    connections: u32,
}

impl CallerEntry {
    /// Returns true if it says no more than a new one would.
    fn is_unused(&self) -> bool {
        // EDGE-4: a call that goes on without its connection keeps its place.
        let places = self.usage.places.load(Ordering::Relaxed);
        self.connections == 0 && places == 0 && self.usage.keys.acquire().is_over()
    }
}

/// Refused connections without a log line.
#[derive(Debug, Default)]
struct RefusedConnections {
    told: Option<Instant>,
    count: u64,
}

/// The calls and the keys of one caller.
#[derive(Debug, Default)]
struct CallerUsage {
    places: AtomicU32,
    keys: Mutex<NewKeys>,
}

/// New keys in the present window.
#[derive(Debug, Default)]
struct NewKeys {
    since: Option<Instant>,
    count: u32,
}

impl NewKeys {
    fn is_over(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() >= KEY_WINDOW)
    }
}

impl CallerTable {
    /// Takes in a connection. Returns `None`, and tells the operator, if the caller has too many.
    pub(super) fn connect(
        self: &Arc<Self>,
        address: SocketAddr,
        limit: Option<NonZeroU32>,
    ) -> Option<ConnectedCaller> {
        let key = CallerAddress::of(address.ip());
        let mut callers = self.callers.acquire();
        // EDGE-4: a flood of addresses must not fill the table.
        if callers.len() >= FEW && callers.len() == callers.capacity() {
            callers.retain(|_, entry| !entry.is_unused());
        }
        let entry = callers.entry(key).or_default();
        if limit.is_some_and(|limit| entry.connections >= limit.get()) {
            drop(callers);
            self.tell();
            return None;
        }
        entry.connections += 1;
        Some(ConnectedCaller {
            address,
            usage: Arc::clone(&entry.usage),
            key,
            table: Arc::clone(self),
        })
    }

    fn disconnect(&self, key: CallerAddress) {
        let mut callers = self.callers.acquire();
        let Some(entry) = callers.get_mut(&key) else {
            return;
        };
        entry.connections -= 1;
        if entry.is_unused() {
            callers.remove(&key);
        }
    }

    /// Writes a log line, at most one a minute.
    fn tell(&self) {
        let mut refusals = self.refusals.acquire();
        refusals.count += 1;
        if refusals.told.is_some_and(|told| told.elapsed() < QUIET) {
            return;
        }
        let refused = std::mem::take(&mut refusals.count);
        refusals.told = Some(Instant::now());
        tracing::warn!(
            refused,
            "a caller has too many connections, and further ones are closed; \
             gateway.per_caller.connections allows more"
        );
    }
}

/// A caller with an open connection.
#[derive(Debug)]
pub(super) struct ConnectedCaller {
    pub(super) address: SocketAddr,
    usage: Arc<CallerUsage>,
    key: CallerAddress,
    table: Arc<CallerTable>,
}

/// A call of a caller counts as more than its limit allows.
#[derive(Debug)]
pub(super) struct CallerIsFull;

impl ConnectedCaller {
    /// Takes one of the caller's places; `None` if they are not limited.
    pub(super) fn enter(
        &self,
        limit: Option<NonZeroU32>,
    ) -> Result<Option<CallerPlace>, CallerIsFull> {
        let Some(limit) = limit else { return Ok(None) };
        let place = CallerPlace::of(&self.usage);
        let before = self.usage.places.fetch_add(1, Ordering::Relaxed);
        // EDGE-4: one caller cannot take all places.
        if before >= limit.get() {
            return Err(CallerIsFull);
        }
        Ok(Some(place))
    }

    /// Returns true if the caller may use a key that has no breaker yet.
    pub(super) fn may_add_key(&self, limit: NonZeroU32) -> bool {
        let mut keys = self.usage.keys.acquire();
        if keys.is_over() {
            *keys = NewKeys {
                since: Some(Instant::now()),
                count: 0,
            };
        }
        // EDGE-4: one caller cannot push out the keys of all others.
        let may = keys.count < limit.get();
        keys.count += u32::from(may);
        may
    }
}

impl Drop for ConnectedCaller {
    fn drop(&mut self) {
        self.table.disconnect(self.key);
    }
}

/// One of a caller's places, given back when its last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct CallerPlace(#[expect(dead_code, reason = "its end counts")] Arc<TakenPlace>);

impl CallerPlace {
    fn of(usage: &Arc<CallerUsage>) -> Self {
        Self(Arc::new(TakenPlace(Arc::clone(usage))))
    }

    /// Returns the place of a request, for a call that may go on after its response has broken off.
    pub(crate) fn of_request(head: &Parts) -> Option<Self> {
        head.extensions.get().cloned()
    }
}

#[derive(Debug)]
struct TakenPlace(Arc<CallerUsage>);

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    fn most(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6f_callers_are_told_apart_by_address_and_network() {
        let table = Arc::new(CallerTable::default());
        let first = table.connect(address("10.0.0.1"), most(1)).unwrap();
        assert!(table.connect(address("::ffff:10.0.0.1"), most(1)).is_none());
        let other = table.connect(address("10.0.0.2"), most(1));
        assert!(other.is_some());
        let network = table.connect(address("2001:db8::1"), most(1));
        assert!(network.is_some());
        assert!(
            table
                .connect(address("2001:db8::ffff:2"), most(1))
                .is_none()
        );
        assert!(table.connect(address("2001:db8:0:1::1"), most(1)).is_some());
        drop(first);
        assert!(table.connect(address("10.0.0.1"), most(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6f_the_table_forgets_callers_who_have_left() {
        let table = Arc::new(CallerTable::default());
        for number in 0..100_000_u32 {
            let ip = std::net::Ipv6Addr::from(u128::from(number) << 64);
            let caller = table.connect(SocketAddr::new(ip.into(), 1), None).unwrap();
            assert!(caller.may_add_key(NonZeroU32::MIN));
            if number % 100 == 0 {
                tokio::time::advance(KEY_WINDOW / 2).await;
            }
        }
        let entries = table.callers.acquire().len();
        assert!(entries < 4 * FEW, "{entries}");
    }

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6f_places_and_keys_of_a_caller_are_limited() {
        let table = Arc::new(CallerTable::default());
        let caller = table.connect(address("10.0.0.1"), None).unwrap();
        let same = table.connect(address("10.0.0.1"), None).unwrap();
        let held = caller.enter(most(1)).unwrap();
        assert!(held.is_some());
        assert!(same.enter(most(1)).is_err() && same.enter(most(1)).is_err());
        drop(held);
        assert!(same.enter(most(1)).is_ok());
        let two = most(2).unwrap();
        assert!(caller.may_add_key(two) && same.may_add_key(two) && !same.may_add_key(two));
        tokio::time::advance(KEY_WINDOW).await;
        assert!(same.may_add_key(two));
    }
}
