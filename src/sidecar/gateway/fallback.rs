//! Fallback rules, as the configuration restricts them.

use crate::config::{FallbackConfig, FallbackOn};
use crate::{Dependency, FallbackRule, ServeOn};

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
