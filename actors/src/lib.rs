//! The actor runtime of Breakerbox.
