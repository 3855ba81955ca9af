//! The integration tests: one binary, with a module for each subject.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod acceptance;
#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "agents")]
mod agents;
mod call_path;
mod config;
mod consumers;
#[cfg(feature = "cli")]
mod demo;
#[cfg(feature = "cli")]
mod gateway;

mod health;
#[cfg(feature = "tower")]
mod integrations;
mod isolation;
#[cfg(all(feature = "mcp", target_os = "linux"))]
mod mcp;
#[cfg(feature = "macros")]
mod protected;
mod reload;
#[cfg(feature = "cli")]
mod replay;
mod runtime;
mod supervision;
mod tidy;

// Helpers shared by several modules.
mod log;

mod scripted;
#[cfg(any(feature = "cli", feature = "mcp"))]
mod tools;

mod streamed;
