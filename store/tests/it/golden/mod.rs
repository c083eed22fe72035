//! Golden files (`store/tests/golden/README.md`): what earlier programs wrote is read by this one,
//! exactly, and what this one writes has the newest golden files' format.

mod answers;
mod files;
mod formats;
mod journal;
mod packages;
mod places;
mod queue;
mod registry;
mod replay;
