//! MCP servers, as callers of the gateway reach them.

pub(super) mod endpoint;

mod handler;
