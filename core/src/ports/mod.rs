//! Where processes or technologies change. A trait lives here when two crates meet at it, with
//! its user when only one does, and does not exist when it has one implementation and no double.

mod catalog;
mod ended_events;
mod function_calls;
mod health;
mod history;
mod invoke;
mod journal;
mod nodes;
mod packages;
mod queue;
mod registry;

pub use catalog::{CatalogError, RevisionCatalog};
pub use ended_events::{
    EndedEvent, EndedEventBatch, EndedEventPosition, EndedEventReader, EndedEvents,
};
pub use function_calls::{FunctionCalls, NoFunctionCalls};
pub use health::TriggerHealth;
pub use history::{
    HistoryBounds, HistoryCursor, HistoryEntry, HistoryPage, HistoryQuery, InvocationHistory,
};
pub use invoke::{BuildProgress, CancelReach, ImageBuilder, ImageError, Invoke};
pub use journal::{InvocationJournal, JournalError, LogCursor, LogPage, LogQuery};
pub use nodes::{InvokerNode, NodeRegistry};
pub use packages::{PackageError, PackageStore};
pub use queue::{
    CancelOutcome, Claim, EventEnd, EventQueue, EventSource, HoldStatus, NewEvent, PushOutcome,
    QueueError, QueueName, QueueStats, ReadyQueues, Receipt, RetryOutcome, TimerTick,
};
pub use registry::{
    AccessKey, DeployResult, FunctionEntry, FunctionRegistry, FunctionRow, NewDeployment,
    RegistryChanges, RegistrySnapshot, ReplacedRevision, StoreError,
};
