//! The words that pass between a pool's state and its shell. Plain data.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// One revision's part of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u32);

/// A sandbox, or the start of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SandboxKey(pub(crate) u64);

/// A caller in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId(pub(crate) u64);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PoolInput {
    /// Somebody wants a sandbox. The ids of waiters only grow.
    Requested { lane: LaneId, waiter: WaiterId },
    /// Somebody in line went away.
    Abandoned { lane: LaneId, waiter: WaiterId },
    /// Somebody's time in line is over. May be said again while code is being loaded for them.
    Expired { lane: LaneId, waiter: WaiterId },
    /// A sandbox came up; how long that took.
    Started { key: SandboxKey, took: Duration },
    /// A sandbox did not come up.
    StartFailed { key: SandboxKey },
    /// A start waits for room on the node. Said again and again while it does.
    Blocked { key: SandboxKey },
    /// A start found room.
    Unblocked { key: SandboxKey },
    /// A sandbox is up and loads the user's code. May be said again.
    Loading { key: SandboxKey },
    /// A sandbox was given back.
    Released { key: SandboxKey, healthy: bool },
    /// A sandbox was given back that only the platform used: it counts as idle since then.
    Returned { key: SandboxKey, idle_since: Instant },
    /// The platform itself wants this sandbox, to freeze it.
    Borrowed { key: SandboxKey },
    /// A sandbox ended by itself.
    Died { key: SandboxKey },
    /// Another function needs the room.
    Evicted { key: SandboxKey },
    /// A sandbox is gone.
    Stopped { key: SandboxKey },
    /// No new events are to be expected for the lane.
    Retired { lane: LaneId },
    /// The node stops.
    Shutdown,
    /// Time has passed.
    Tick,
}

/// What is to be done. Nothing of it may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PoolAction {
    /// Start a sandbox for the lane.
    Start { key: SandboxKey, lane: LaneId },
    /// Do not go on with a start that still waits for room.
    Cancel { key: SandboxKey },
    /// The sandbox is the waiter's until it is released.
    Grant { waiter: WaiterId, key: SandboxKey },
    /// The sandbox is the platform's until it is returned.
    Lend { key: SandboxKey },
    /// The waiter gets none.
    Refuse { waiter: WaiterId, why: RefusalReason },
    /// Stop the sandbox and say when it is gone.
    Stop { key: SandboxKey },
}

/// Why a waiter gets no sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// So many stand in line already.
    WaitQueueFull { waiting: u32 },
    /// So many events of the function run already.
    Concurrency { limit: u32 },
    /// A start waits for room on the node.
    NoRoom,
    /// The backend did not get a sandbox up in time.
    StartSlow,
    /// None became free or came up in time.
    TooSlow { busy: u32 },
    /// The start that it waited for failed.
    StartFailed,
    /// The node stops.
    Stopping,
}

/// What the operator and the function's author have set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PoolRules {
    /// Events of the function at once.
    pub(crate) concurrency: Option<u32>,
    /// Callers in line.
    pub(crate) waiting_max: usize,
    /// Starts under way at once.
    pub(crate) starts_max: usize,
    /// The machine's processors.
    pub(crate) cores: usize,
    /// A wait that is worth another sandbox, unless a cold start takes less.
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

/// At most a handful: on the warm path one, without an allocation.
pub(crate) type PoolActions = SmallVec<[PoolAction; 2]>;
