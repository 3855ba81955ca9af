//! The sidecar: the gateway for callers in any language, the admin side for operators, and what
//! both are observed with.
//!
//! It builds on the library and adds no policy of its own. Each part is public at the crate's root.

#[cfg(feature = "gateway")]
pub mod gateway;

#[cfg(feature = "admin")]
pub mod admin;

#[cfg(feature = "admin")]
pub(crate) mod observe;

// shared by the admin side and the gateway
#[cfg(any(feature = "admin", feature = "gateway"))]
mod host_guard;

// shared by the admin side and the check of the configuration
#[cfg(feature = "admin")]
pub(crate) mod state_file;

// shared by the admin side and the metrics
#[cfg(feature = "admin")]
mod names;

#[cfg(all(feature = "cli", feature = "fleet"))]
pub(crate) mod consumers;

#[cfg(feature = "cli")]
pub mod serve;

#[cfg(feature = "cli")]
pub mod simulated;
