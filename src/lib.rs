//! Breakerbox.
