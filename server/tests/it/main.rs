#![cfg(test)]
//! The whole platform in one process, and the shape of its crates.

mod architecture;
mod reference;
