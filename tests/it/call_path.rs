//! Rules of the call path (CALL-1 to CALL-7, LIM-1 to LIM-4, BRK-9, FBK-1 to FBK-3), through the
//! public interface.

mod answers;
mod bad_answers;
mod leaving;

mod chaos;
mod deadline;
mod hedge;
mod keys;
mod symptoms;

mod bulkhead;
mod limits;
mod order;
mod rate;
mod refusals;
mod run_away;

mod key_pauses;
mod pauses;
mod throttle;

mod fallback;
mod fallback_chains;
mod fallback_deadline;
mod fallback_renewal;
mod last_resort;

mod errors;
mod lent_closures;
mod long_lives;
mod mocked;
mod nested;

mod served;
mod stream;
mod stream_books;
mod stream_time;
