//! What both journals share: entries, the buffer through which they are handed to the writer, and
//! how they are rendered as log lines.

mod buffer;
mod entry;
mod log_rendering;

pub use buffer::{DroppedEntries, JournalWriter};

pub(crate) use buffer::{EntrySink, JournalBuffer, buffer};
pub(crate) use entry::{JournalEntry, JournalEntryKind};
pub(crate) use log_rendering::render_page;
