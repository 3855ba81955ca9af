//! The reservations of one call: made for each attempt before it takes its slot, and taken out by the
//! attempt, which settles them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use breakerbox_policy::{MeterRefusal, Time};

use super::{MeteredLimit, MeteredShare};
use crate::sync::LockExt;

/// Amounts that each attempt of a call reserves at one or several limits. Cheap to clone: all clones
/// are of the same call.
///
/// An attempt is admitted once it has all of them, and takes them out with [`take`](Self::take).
/// What no attempt takes out is given back.
///
/// # Source  Rule LLM-19 in docs/rules.md.
#[derive(Clone)]
pub struct MeteredCall(Arc<CallReservations>);

struct CallReservations {
    needs: Vec<(MeteredLimit, u64)>,
    /// The reservations of admitted attempts that have not taken them out, the oldest first.
    ready: Mutex<VecDeque<UnusedShares>>,
}

/// Reservations of which nothing was used. Dropped, they are given back.
#[derive(Debug, Default)]
pub(crate) struct UnusedShares(Vec<MeteredShare>);

impl UnusedShares {
    /// Returns the reservations of an attempt that goes out now.
    pub(crate) fn into_shares(mut self) -> Vec<MeteredShare> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for UnusedShares {
    fn drop(&mut self) {
        self.0.drain(..).for_each(MeteredShare::give_back);
    }
}

impl MeteredCall {
    /// Creates the reservations of a call: an amount at each limit, in an order that is the same for
    /// all calls.
    #[must_use]
    pub fn new(needs: impl IntoIterator<Item = (MeteredLimit, u64)>) -> Self {
        Self(Arc::new(CallReservations {
            needs: needs.into_iter().collect(),
            ready: Mutex::default(),
        }))
    }

    /// Takes out the reservations of an attempt that goes out now, in the order of the limits; none if
    /// it has none.
    pub fn take(&self) -> Vec<MeteredShare> {
        let ready = self.0.ready.acquire().pop_front();
        ready.map_or_else(Vec::new, UnusedShares::into_shares)
    }

    /// Reserves the amounts of one attempt, and waits for them.
    ///
    /// # Errors  [`MeterRefusal`] of the first limit that refuses.
    /// # Cancel safety   If the future is dropped, nothing is reserved.
    pub(crate) async fn reserve(
        &self,
        deadline: Option<Time>,
    ) -> Result<UnusedShares, MeterRefusal> {
        let mut shares = UnusedShares::default();
        for (limit, amount) in &self.0.needs {
            shares.0.push(limit.reserve(*amount, deadline).await?);
        }
        Ok(shares)
    }

    /// Keeps the reservations of an attempt that was admitted.
    pub(crate) fn admitted(&self, shares: UnusedShares) {
        self.0.ready.acquire().push_back(shares);
    }
}

impl fmt::Debug for MeteredCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MeteredCall")
            .field("needs", &self.0.needs)
            .finish_non_exhaustive()
    }
}
