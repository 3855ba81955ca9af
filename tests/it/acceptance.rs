//! Numbered acceptance tests (`item_14_…`): breaker (1 to 30), fallbacks (31 to 42), throttles (59
//! to 61), retries (77 to 82), streams (83, 84), limits (85 to 88) and supervision (89 to 92),
//! through the public interface and on virtual time. "At once" means that no time passes.

mod breaker;
mod half_open;

mod fallbacks;

mod bulkhead;
mod limits;
mod retries;

mod supervision;

mod concurrency;

mod streams;
