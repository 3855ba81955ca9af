//! The acceptance list, an item a test: breaker (1 to 30), fallbacks (31 to 42), streams (83, 84),
//! bulkheads (85) and supervision (89 to 92), through the public interface and on virtual time.
//! "At once" is: no time passes.

mod breaker;
mod half_open;

mod fallbacks;

mod bulkhead;

mod supervision;

mod concurrency;

mod streams;
