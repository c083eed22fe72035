//! The messages between a pool's state and its shell. Plain data.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// One revision's part of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u32);

/// A sandbox, or the start of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SandboxKey(pub(crate) u64);

/// A caller that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId(pub(crate) u64);

/// What happened to a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PoolInput {
    /// A caller wants a sandbox. The ids of callers only grow.
    Requested { lane: LaneId, waiter: WaiterId },
    /// A waiting caller hung up.
    Abandoned { lane: LaneId, waiter: WaiterId },
    /// A caller's waiting time is over. Reported again while code is being loaded for it.
    Expired { lane: LaneId, waiter: WaiterId },
    /// A sandbox is ready; how long its start took.
    Started { key: SandboxKey, took: Duration },
    /// The sandbox did not come up.
    StartFailed { key: SandboxKey },
    /// A start waits for room on the node. Reported again and again while it does.
    Blocked { key: SandboxKey },
    /// A start found room.
    Unblocked { key: SandboxKey },
    /// A sandbox was started and loads the user's code. May be reported again.
    Loading { key: SandboxKey },
    /// A lease ended.
    Released { key: SandboxKey, healthy: bool },
    /// The maintenance returned a sandbox, which counts as idle since then.
    Returned { key: SandboxKey, idle_since: Instant },
    /// The maintenance wants this sandbox, to freeze it.
    Borrowed { key: SandboxKey },
    /// A sandbox ended by itself.
    Died { key: SandboxKey },
    /// Another function needs the room.
    Evicted { key: SandboxKey },
    /// A sandbox is gone.
    Stopped { key: SandboxKey },
    /// No new events are expected for the lane.
    Retired { lane: LaneId },
    /// The node stops.
    Shutdown,
    /// Time has passed.
    Tick,
}

/// What the shell must do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PoolAction {
    /// Start a sandbox for the lane.
    Start { key: SandboxKey, lane: LaneId },
    /// Give up a start that still waits for room.
    Cancel { key: SandboxKey },
    /// The caller has the sandbox until it is released.
    Grant { waiter: WaiterId, key: SandboxKey },
    /// The maintenance has the sandbox until it is returned.
    Lend { key: SandboxKey },
    /// The caller gets none.
    Refuse { waiter: WaiterId, reason: RefusalReason },
    /// Stop the sandbox and report when it is gone.
    Stop { key: SandboxKey },
}

/// Why a caller gets no sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// So many callers wait already.
    WaitQueueFull { waiting: u32 },
    /// So many events of the function run already.
    Concurrency { limit: u32 },
    /// A start waits for room on the node.
    NoRoom,
    /// The backend did not get a sandbox up in time.
    StartSlow,
    /// None became free or came up in time.
    TooSlow { busy: u32 },
    /// The start that the caller waited for failed.
    StartFailed,
    /// The node stops.
    Stopping,
}

/// Settings of the operator and of the function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PoolRules {
    /// Events of the function at once.
    pub(crate) concurrency: Option<u32>,
    /// Callers that may wait.
    pub(crate) waiting_max: usize,
    /// Starts at once.
    pub(crate) starts_max: usize,
    /// The machine's processors.
    pub(crate) cores: usize,
    /// A wait that justifies another sandbox, unless a cold start takes less.
    pub(crate) target_wait: Duration,
    /// How long idle sandboxes are kept.
    pub(crate) keep_alive: Duration,
}

/// How many sandboxes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolCounts {
    pub(crate) starting: u32,
    pub(crate) idle: u32,
    pub(crate) busy: u32,
    pub(crate) stopping: u32,
    pub(crate) waiting: u32,
}

/// On the warm path one action, without an allocation.
pub(crate) type PoolActions = SmallVec<[PoolAction; 2]>;
