//! Fallback rules, as the configuration restricts them.

use std::sync::Arc;

use crate::config::{FallbackConfig, FallbackKind, FallbackOn};
use crate::{Dependency, FallbackRule, ServeOn};

/// The caches among a dependency's fallbacks. Their answers outlive a reload that changes no more
/// than their limits.
pub(super) struct FallbackCaches<C>(Vec<(FallbackKind, Arc<C>)>);

/// Bound of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheBound {
    /// A number of entries, which can change.
    Entries,
    /// Bytes, which are shared out among the entries from the start on.
    Bytes,
}

/// A cache that may go on under another configuration.
pub(super) enum FormerCache<C> {
    /// Its configuration is the same.
    Same(Arc<C>),
    /// Only its limits differ.
    OtherLimits(Arc<C>),
}

impl<C> Default for FallbackCaches<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C> FallbackCaches<C> {
    /// Adds the next cache.
    pub(super) fn push(&mut self, kind: &FallbackKind, cache: &Arc<C>) {
        self.0.push((kind.clone(), Arc::clone(cache)));
    }

    /// Returns the cache that has the same place as the next one of `new`, if its answers may be
    /// kept under this configuration.
    pub(super) fn former(
        &self,
        new: &Self,
        kind: &FallbackKind,
        bound: CacheBound,
    ) -> Option<FormerCache<C>> {
        let (former, cache) = self.0.get(new.0.len())?;
        let cache = Arc::clone(cache);
        if former == kind {
            return Some(FormerCache::Same(cache));
        }
        // EDGE-2: what tells answers apart, or forbids to keep one, must be the same.
        (with_limits_of(former, kind, bound).as_ref() == Some(kind))
            .then_some(FormerCache::OtherLimits(cache))
    }
}

/// Returns a cache's configuration with the limits of another one that apply to its entries too.
fn with_limits_of(
    former: &FallbackKind,
    kind: &FallbackKind,
    bound: CacheBound,
) -> Option<FallbackKind> {
    let FallbackKind::StaleCache {
        max_age: age,
        max_entries: entries,
        refresh: renew,
        ..
    } = kind
    else {
        return None;
    };
    let mut changed = former.clone();
    let FallbackKind::StaleCache {
        max_age,
        max_entries,
        refresh,
        ..
    } = &mut changed
    else {
        return None;
    };
    (*max_age, *refresh) = (*age, *renew);
    if bound == CacheBound::Entries {
        *max_entries = *entries;
    }
    Some(changed)
}

/// Restricts a rule to the cases that the configuration names.
pub(super) fn narrowed<D: Dependency>(
    rule: FallbackRule<D>,
    config: &FallbackConfig,
) -> FallbackRule<D> {
    let rule = match config.on[..] {
        [FallbackOn::Refused] => rule.on(ServeOn::Refused),
        [FallbackOn::Failed] => rule.on(ServeOn::Failed),
        _ => rule,
    };
    if config.writes { rule.writes() } else { rule }
}
