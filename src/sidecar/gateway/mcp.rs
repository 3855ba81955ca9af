//! MCP servers, as callers of the gateway reach them.

pub(super) mod endpoint;

// a request
mod exchange;

mod body_reader;

mod request_check;

pub(super) mod call_headers;

mod dispatch;

mod input_required;

mod hooks;

pub(super) mod endpoint_front;

mod tool_table;

pub(super) mod raw_object;

// its caller
mod caller_message;

mod caller_stream;

mod sessions;

mod caller_session;

mod session_facts;

mod message_history;

mod session_stream;

mod kept_call;

mod session_response;

mod questions;

mod held_calls;

mod audience;

// its response
mod rpc_reply;

mod event_body;

mod conversation;

// several servers
pub(super) mod group;
