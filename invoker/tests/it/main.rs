#![cfg(test)]
//! The contract of the invoker.

mod backends;
mod events;
