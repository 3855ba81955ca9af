//! The tests of the whole: one binary, a module for each subject.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod acceptance;
#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "agents")]
mod agents;
mod call_path;
mod config;
#[cfg(feature = "cli")]
mod demo;
#[cfg(feature = "cli")]
mod gateway;
mod reload;
#[cfg(feature = "cli")]
mod replay;
mod runtime;
mod supervision;
mod tidy;

// what they share
mod log;

mod scripted;
#[cfg(feature = "agents")]
mod tools;

mod streamed;
