//! A sandbox that is up: what one needs to use, freeze, watch and remove it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hanshu_core::{ColdStart, InstanceId};
use tokio::time::Instant;

use crate::backend::port::Sandbox;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::control::{SandboxEnd, SandboxHandle};
use crate::sandbox::deadlines::EventWatch;
use crate::sandbox::logs::SandboxLog;
use crate::sandbox::run_dir;
use crate::sandbox::uids::SandboxUserId;

/// Memory is sampled at most this often.
const SAMPLE_INTERVAL_MS: u64 = 100;

const WARM: u8 = 0;
const FROZEN: u8 = 1;
const PAUSED: u8 = 2;
/// It runs and cannot be frozen.
const UNFREEZABLE: u8 = 3;

/// A sandbox that is up.
#[derive(Debug)]
pub(crate) struct SandboxInstance {
    pub(crate) id: InstanceId,
    pub(crate) log: Arc<SandboxLog>,
    pub(crate) leash: SandboxHandle,
    /// From the order to start it until it was ready.
    pub(crate) init: Duration,
    /// The same for the log of its first event.
    pub(crate) cold_start: ColdStart,
    pub(crate) sandbox: Box<dyn Sandbox>,
    pub(crate) run_dir: PathBuf,
    /// Its user and its room, until it is gone: given back in this order, so that who finds room
    /// finds a user, too.
    pub(crate) belongings: Mutex<Option<(SandboxUserId, CapacityReservation)>>,
    pub(crate) vitals: InstanceStats,
    /// The deadline of the event that runs.
    pub(crate) watch: Arc<EventWatch>,
}

/// What changes while a sandbox lives.
#[derive(Debug)]
pub(crate) struct InstanceStats {
    born: Instant,
    used: AtomicBool,
    frost: AtomicU8,
    memory_bytes: AtomicU64,
    /// Milliseconds after `born` from which memory is sampled again.
    sample_after: AtomicU64,
    /// Kills for want of memory that an answer was already judged by.
    oom_kills: AtomicU64,
}

impl InstanceStats {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            used: AtomicBool::new(false),
            frost: AtomicU8::new(WARM),
            memory_bytes: AtomicU64::new(0),
            sample_after: AtomicU64::new(0),
            oom_kills: AtomicU64::new(0),
        }
    }
}

impl SandboxInstance {
    /// Whether it had no event before. Says so once.
    pub(crate) fn first_use(&self) -> bool {
        !self.vitals.used.swap(true, Ordering::Relaxed)
    }

    /// Freezes it, where that can be done. The caller holds it, so nobody uses it.
    pub(crate) async fn freeze(&self) {
        let frost = if self.sandbox.freeze() {
            FROZEN
        } else if self.sandbox.pause().await {
            PAUSED
        } else {
            UNFREEZABLE
        };
        self.vitals.frost.store(frost, Ordering::Release);
    }

    /// Whether it is neither frozen nor known to be unfreezable.
    pub(crate) fn may_freeze(&self) -> bool {
        self.vitals.frost.load(Ordering::Acquire) == WARM
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.vitals.frost.load(Ordering::Acquire), FROZEN | PAUSED)
    }

    /// Makes it run again. The caller holds it. `false`: it is lost.
    pub(crate) async fn thaw(&self) -> bool {
        let done = match self.vitals.frost.load(Ordering::Acquire) {
            FROZEN => self.sandbox.thaw(),
            PAUSED => self.sandbox.unpause().await,
            _ => return true,
        };
        if done {
            self.vitals.frost.store(WARM, Ordering::Release);
        }
        done
    }

    /// Bytes of memory in use, as of a moment ago; 0 where unknown.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let vitals = &self.vitals;
        let now = u64::try_from(vitals.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        if vitals.sample_after.load(Ordering::Relaxed) <= now {
            vitals.sample_after.store(now.saturating_add(SAMPLE_INTERVAL_MS), Ordering::Relaxed);
            if let Some(bytes) = self.sandbox.memory_bytes() {
                vitals.memory_bytes.store(bytes, Ordering::Relaxed);
            }
        }
        vitals.memory_bytes.load(Ordering::Relaxed)
    }

    /// Whether the kernel ended it for want of memory.
    pub(crate) fn ran_out_of_memory(&self, end: Option<&SandboxEnd>) -> bool {
        ran_out_of_memory(end, self.sandbox.as_ref())
    }

    /// Whether the kernel killed something in it for want of memory since this was asked last. A
    /// script goes on without its child, and its answer is worth nothing.
    pub(crate) fn lost_a_child_to_memory(&self) -> bool {
        let kills = self.sandbox.oom_kills().unwrap_or_default();
        self.vitals.oom_kills.swap(kills, Ordering::Relaxed) < kills
    }

    /// Says that its room is about to become free.
    pub(crate) fn leaving(&self) {
        let mut belongings = self.belongings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = belongings.as_mut() {
            place.leave();
        }
    }

    /// Ends and removes it. Run in a task that nobody drops half-way.
    pub(crate) async fn remove(&self) {
        self.leaving();
        self.leash.kill();
        self.sandbox.stop().await;
        self.leash.hang_up();
        self.log.late();
        run_dir::remove(&self.run_dir);
        self.belongings.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Whether a sandbox's end was for want of memory: the shim saw it, or the cgroup counted it.
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
