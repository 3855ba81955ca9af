//! The tests of the whole: one binary, a module for each subject.

mod config;
#[cfg(feature = "cli")]
mod demo;
mod runtime;
mod supervision;
mod tidy;
