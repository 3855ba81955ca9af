//! Code of users that blocks its thread (rule CALL-9), and the life of a runtime: its starts, its
//! end, and what is called while it drains (rules CALL-10 and SUP-7).

mod blocked_threads;
mod defaults;
mod lives;
mod mailbox;
