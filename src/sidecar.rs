//! The sidecar: the gateway for callers in any language, the admin side for operators, and what
//! both are observed with.
//!
//! It builds on the library and adds no policy of its own. Each part is public at the crate's root.

#[cfg(feature = "cli")]
pub mod gateway;

#[cfg(feature = "cli")]
pub mod admin;

#[cfg(feature = "cli")]
pub(crate) mod observe;

#[cfg(feature = "cli")]
pub mod serve;

#[cfg(feature = "cli")]
pub mod simulated;
