//! One function's sandboxes: pure decisions in `state/`, and a thin shell that carries them out.

mod acquire_error;
mod function_pool;
mod lease;
pub(crate) mod state;

pub(crate) use acquire_error::{AcquireError, unavailable};
pub(crate) use function_pool::{
    AcquireResult, CancelTarget, FunctionPool, Lease, PoolContext, SandboxStarter,
};
