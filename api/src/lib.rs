//! The native API, for servers and clients: its wire types, a typed client, its OpenAPI
//! description.
//!
//! The gateway serves these shapes; the command line calls them through [`Client`]. Neither needs
//! the other.

mod client;
mod openapi;
pub mod wire;

pub use client::{
    Cancellation, Client, ClientAuth, ClientError, FunctionPath, InvocationFilter, InvokeAnswer,
    InvokeRequest, LogFilter,
};
pub use openapi::openapi;
