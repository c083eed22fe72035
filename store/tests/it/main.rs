//! The ports' contracts, run on every adapter that can be had here.
#![cfg(test)]

mod databases;
mod nodes;
mod open;
mod packages;
mod registry;
