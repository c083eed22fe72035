//! What the gateway promises, tried through its public face.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod api_calls;
mod api_deploys;
mod api_history;
mod api_reads;
mod function_calls;
mod http_triggers;
mod invoker;
mod sockets;
mod test_support;
mod world;
