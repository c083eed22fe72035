//! A sandbox that is up: what is needed to use, freeze, watch and remove it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::{ColdStart, InstanceId, RequestId, lock};
use tokio::time::Instant;

use crate::backend::port::Sandbox;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::control::{SandboxEnd, SandboxHandle};
use crate::sandbox::deadlines::{DeadlineWatcher, EventCancellation, EventWatch};
use crate::sandbox::function_calls::FunctionCallServer;
use crate::sandbox::logs::SandboxLog;
use crate::sandbox::run_dir;
use crate::sandbox::user_ids::SandboxUserId;

/// Memory is sampled at most this often.
const SAMPLE_INTERVAL_MS: u64 = 100;

const RUNNING: u8 = 0;
const FROZEN: u8 = 1;
const PAUSED: u8 = 2;
/// It runs and cannot be frozen.
const UNFREEZABLE: u8 = 3;

/// A sandbox that is up.
#[derive(Debug)]
pub(crate) struct SandboxInstance {
    pub(crate) id: InstanceId,
    pub(crate) log: Arc<SandboxLog>,
    pub(crate) handle: SandboxHandle,
    /// From the order to start it until it was ready.
    pub(crate) init: Duration,
    /// The same with its parts, for the log of its first event.
    pub(crate) cold_start: ColdStart,
    pub(crate) sandbox: Box<dyn Sandbox>,
    pub(crate) run_dir: PathBuf,
    /// Answers the calls of its function.
    pub(crate) calls: FunctionCallServer,
    /// What it has of the node until it is gone.
    pub(crate) resources: Mutex<Option<SandboxResources>>,
    pub(crate) stats: InstanceStats,
    /// The event that runs in it, with its request id and deadline.
    pub(crate) watch: Arc<EventWatch>,
}

/// What a sandbox has of its node. Given back in this order, so that a start that finds room finds a
/// user id, too.
#[derive(Debug)]
pub(crate) struct SandboxResources {
    /// Free for another sandbox when dropped.
    pub(crate) _user_id: SandboxUserId,
    pub(crate) capacity: CapacityReservation,
}

/// What changes while a sandbox is up.
#[derive(Debug)]
pub(crate) struct InstanceStats {
    created: Instant,
    used: AtomicBool,
    freeze_state: AtomicU8,
    memory_bytes: AtomicU64,
    /// Milliseconds after `created` from which memory is sampled again.
    sample_after: AtomicU64,
    /// Out-of-memory kills that an answer was already judged by.
    oom_kills: AtomicU64,
}

impl InstanceStats {
    pub(crate) fn new() -> Self {
        Self {
            created: Instant::now(),
            used: AtomicBool::new(false),
            freeze_state: AtomicU8::new(RUNNING),
            memory_bytes: AtomicU64::new(0),
            sample_after: AtomicU64::new(0),
            oom_kills: AtomicU64::new(0),
        }
    }
}

impl SandboxInstance {
    /// Whether it had no event before. True once only.
    pub(crate) fn first_use(&self) -> bool {
        !self.stats.used.swap(true, Ordering::Relaxed)
    }

    /// Freezes it where that is possible. The caller has its lease, so no event runs.
    pub(crate) async fn freeze(&self) {
        let state = if self.sandbox.freeze() {
            FROZEN
        } else if self.sandbox.pause().await {
            PAUSED
        } else {
            UNFREEZABLE
        };
        self.stats.freeze_state.store(state, Ordering::Release);
    }

    /// Whether it is neither frozen nor known to be unfreezable.
    pub(crate) fn may_freeze(&self) -> bool {
        self.stats.freeze_state.load(Ordering::Acquire) == RUNNING
    }

    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.stats.freeze_state.load(Ordering::Acquire), FROZEN | PAUSED)
    }

    /// Makes it run again where it is frozen. The caller has its lease. `false`: it is lost.
    pub(crate) async fn thaw(&self) -> bool {
        let thawed = match self.stats.freeze_state.load(Ordering::Acquire) {
            FROZEN => self.sandbox.thaw(),
            PAUSED => self.sandbox.unpause().await,
            _ => return true,
        };
        if thawed {
            self.stats.freeze_state.store(RUNNING, Ordering::Release);
        }
        thawed
    }

    /// Bytes of memory in use, at most [`SAMPLE_INTERVAL_MS`] old; 0 where unknown.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let stats = &self.stats;
        let now = u64::try_from(stats.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        if stats.sample_after.load(Ordering::Relaxed) <= now {
            stats.sample_after.store(now.saturating_add(SAMPLE_INTERVAL_MS), Ordering::Relaxed);
            if let Some(bytes) = self.sandbox.memory_bytes() {
                stats.memory_bytes.store(bytes, Ordering::Relaxed);
            }
        }
        stats.memory_bytes.load(Ordering::Relaxed)
    }

    /// Whether it ended for lack of memory.
    pub(crate) fn ran_out_of_memory(&self, end: Option<&SandboxEnd>) -> bool {
        ran_out_of_memory(end, self.sandbox.as_ref())
    }

    /// Whether the kernel killed a process in it for lack of memory since this was last asked. A
    /// script goes on without its child, and its answer is worthless.
    pub(crate) fn child_was_oom_killed(&self) -> bool {
        let kills = self.sandbox.oom_kills().unwrap_or_default();
        self.stats.oom_kills.swap(kills, Ordering::Relaxed) < kills
    }

    /// Cancels an invocation that it was granted to. An event that runs gets SIGTERM, and `grace` until
    /// the sandbox is stopped; one that has not begun ends as soon as it does.
    pub(crate) fn cancel(&self, watcher: &DeadlineWatcher, request_id: RequestId, grace: Duration) {
        match self.watch.cancel(watcher, request_id, grace) {
            EventCancellation::Began => self.handle.terminate(),
            EventCancellation::Repeated | EventCancellation::Early => {}
        }
    }

    /// Notes that its room is about to be released.
    pub(crate) fn mark_leaving(&self) {
        if let Some(resources) = lock(&self.resources).as_mut() {
            resources.capacity.mark_leaving();
        }
    }

    /// Ends and removes it. Run in a task that is never dropped.
    pub(crate) async fn remove(&self) {
        self.mark_leaving();
        self.calls.stop();
        self.handle.kill();
        self.sandbox.stop().await;
        self.handle.close();
        self.log.write_unowned();
        run_dir::remove(&self.run_dir);
        lock(&self.resources).take();
    }
}

/// Whether a sandbox ended for lack of memory: the shim reports it, or its control group counted it.
pub(crate) fn ran_out_of_memory(end: Option<&SandboxEnd>, sandbox: &dyn Sandbox) -> bool {
    let killed = || sandbox.oom_kills().is_some_and(|kills| 0 < kills);
    match end {
        Some(SandboxEnd::Exited(exited)) => match (exited.oom_killed, exited.signal) {
            (Some(true), _) => true,
            (_, Some(9)) => killed(),
            _ => false,
        },
        Some(SandboxEnd::Lost) | None => killed(),
    }
}
