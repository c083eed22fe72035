//! Calls between the processes of one installation: invocations, their placement and their
//! cancelling, packages by
//! digest, images, health problems of triggers.
//!
//! Plain HTTP/1.1 with keep-alive on a listener of its own, every request but `/healthz` with the
//! cluster's shared token. Both ends are of the same version of the program, so these wire types
//! may change with every version. [`ClusterServer`] answers requests; the listener that they come
//! from is the caller's.

mod balancer;
mod messages;
mod ndjson;
mod peer_client;
mod placement;
mod remote_cancel;
mod remote_images;
mod remote_invoker;
mod remote_packages;
mod server;
mod trigger_health;

pub use balancer::Balancer;
pub use peer_client::PeerClient;
pub use remote_cancel::ClusterInvoker;
pub use remote_images::RemoteImages;
pub use remote_invoker::RemoteInvoker;
pub use remote_packages::RemotePackages;
pub use server::{ClusterServer, ClusterServerParts};
pub use trigger_health::RemoteTriggerHealth;
