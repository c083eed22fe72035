//! What both journals share: entries, the ring they are handed over through, and how they are
//! shown.

mod entry;
mod render;
mod ring;

pub use ring::{Dropped, JournalWriter};

pub(crate) use entry::{Entry, Kind};
pub(crate) use render::page;
pub(crate) use ring::{Ring, Sink, channel};
