//! Where processes or technologies change. A trait lives here when two crates meet at it, with
//! its user when only one does, and does not exist when it has one implementation and no double.

mod catalog;
mod invoke;
mod journal;
mod nodes;
mod packages;
mod queue;
mod registry;

pub use catalog::{Catalog, CatalogError};
pub use invoke::{ImageBuilder, ImageError, Invoke, Progress};
pub use journal::{Cursor, Journal, JournalError, LogPage, LogQuery};
pub use nodes::{InvokerNode, Nodes};
pub use packages::{PackageError, PackageStore};
pub use queue::{
    Claim, Ended, EventQueue, EventSource, NewEvent, Pushed, QueueError, QueueName, QueueStats,
    Ready, Receipt, Tick,
};
pub use registry::{
    AccessKey, Deployed, Deployment, FunctionEntry, FunctionRow, Registry, RegistryChanges,
    RegistrySnapshot, StoreError,
};
