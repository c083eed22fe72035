//! The prewarmed sandboxes of a node: how many of which shape there are, and who takes one.
//!
//! Starting a container when it is needed was not enough: it takes 350 ms (`cold_docker_python` in
//! docs/promises.md), and two cores start about ten a second. A call that takes a prewarmed sandbox is
//! answered after 4 to 9 ms (`cold_prewarmed_python`, `cold_prewarmed_node`). A fixed number of them was
//! not enough either: they need memory that functions could have, and their start takes the processor
//! from calls. So their number follows the demand, they are stopped when a function needs their room,
//! and new ones are started only while no function's sandbox starts. No warm call touches any of it.

mod demand;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::{RuntimeFamily, lock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::InvokerOptions;
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::SandboxShape;
use demand::{PrewarmBounds, PrewarmDemand, ShapeStatus};

/// Prewarmed sandboxes may have an eighth of the node's memory.
const MEMORY_DIVISOR: u64 = 8;
/// For this long after a start had to wait for room, idle sandboxes may be stopped for prewarmed ones, as
/// the next start would do.
const SHORTAGE_MEMORY: Duration = Duration::from_secs(60);

/// A sandbox must have been idle during this many cold starts before it is stopped for a prewarmed one: the
/// next event is then more likely another function's than its own.
const IDLE_STARTS: usize = 3;

/// The prewarmed sandboxes of a node.
#[derive(Debug)]
pub(crate) struct PrewarmPool {
    bounds: PrewarmBounds,
    inventory: Mutex<PrewarmInventory>,
    /// Starts of functions' sandboxes in progress.
    starts: AtomicUsize,
    /// Notified when there may be something to start.
    changed: Notify,
}

/// A start of a function's sandbox, in progress until this is dropped.
#[derive(Debug)]
pub(crate) struct StartInProgress(Arc<PrewarmPool>);

impl Drop for StartInProgress {
    fn drop(&mut self) {
        self.0.starts.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

#[derive(Debug, Default)]
struct PrewarmInventory {
    by_shape: HashMap<SandboxShape, ShapeInventory>,
    /// Found dead, to be removed.
    dead: Vec<PrewarmedSandbox>,
    /// When a start last had to wait for room.
    shortage_at: Option<Instant>,
    /// The last cold starts, of any shape.
    starts: VecDeque<Instant>,
    closed: bool,
}

#[derive(Debug, Default)]
struct ShapeInventory {
    demand: PrewarmDemand,
    /// In the order in which they were started.
    ready: Vec<PrewarmedSandbox>,
    starting: usize,
}

impl PrewarmPool {
    /// An empty one. Without `prewarming`, which the backend may refuse, it stays empty.
    pub(crate) fn new(options: &InvokerOptions, prewarming: bool) -> Self {
        let count = |set| usize::try_from(set).unwrap_or(usize::MAX);
        let bounds = PrewarmBounds {
            min: if prewarming { count(options.prewarmed_min) } else { 0 },
            max: count(options.prewarmed_max),
            memory_mb: options.memory_mb() / MEMORY_DIVISOR,
        };
        Self {
            bounds,
            inventory: Mutex::default(),
            starts: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Whether there may be prewarmed sandboxes.
    pub(crate) fn is_enabled(&self) -> bool {
        0 < self.bounds.min && 0 < self.bounds.max
    }

    /// A prewarmed sandbox for a cold start of this shape. The start counts as demand in any case.
    pub(crate) fn take(&self, shape: SandboxShape) -> Option<PrewarmedSandbox> {
        if !self.is_enabled() {
            return None;
        }
        let now = Instant::now();
        let mut inventory = lock(&self.inventory);
        inventory.starts.truncate(IDLE_STARTS - 1);
        inventory.starts.push_front(now);
        inventory.by_shape.entry(shape).or_default().demand.note_start(now);
        let taken = inventory.take(shape);
        drop(inventory);
        self.changed.notify_one();
        taken
    }

    /// The same for a start that waits for room and was counted before.
    pub(crate) fn take_late(&self, shape: SandboxShape) -> Option<PrewarmedSandbox> {
        lock(&self.inventory).take(shape)
    }

    /// Takes back a prewarmed sandbox whose start is not wanted any more; returns it, to be discarded, when
    /// the pool is closed.
    pub(crate) fn put_back(&self, prewarmed: PrewarmedSandbox) -> Option<PrewarmedSandbox> {
        let mut inventory = lock(&self.inventory);
        if inventory.closed {
            return Some(prewarmed);
        }
        inventory.by_shape.entry(prewarmed.shape()).or_default().ready.push(prewarmed);
        None
    }

    /// The shapes of the sandboxes of all functions.
    pub(crate) fn expect(&self, shapes: impl IntoIterator<Item = SandboxShape>) {
        if !self.is_enabled() {
            return;
        }
        let mut inventory = lock(&self.inventory);
        for stock in inventory.by_shape.values_mut() {
            stock.demand.expected = false;
        }
        for shape in shapes {
            inventory.by_shape.entry(shape).or_default().demand.expected = true;
        }
        drop(inventory);
        self.changed.notify_one();
    }

    /// A start of a function's sandbox begins: until the result is dropped, the processor is for it.
    pub(crate) fn begin_start(self: &Arc<Self>) -> StartInProgress {
        self.starts.fetch_add(1, Ordering::AcqRel);
        StartInProgress(Arc::clone(self))
    }

    pub(super) fn is_start_in_progress(&self) -> bool {
        0 < self.starts.load(Ordering::Acquire)
    }

    /// A start waits for room: returns prewarmed sandboxes to be stopped, of `missing_mb` MiB in all.
    /// `None`: there are not enough.
    pub(crate) fn free(&self, missing_mb: u64) -> Option<Vec<PrewarmedSandbox>> {
        let mut inventory = lock(&self.inventory);
        inventory.shortage_at = Some(Instant::now());
        let ready = inventory.by_shape.values().flat_map(|stock| &stock.ready);
        let all: u64 = ready.map(|prewarmed| prewarmed.shape().prewarmed_mb()).sum();
        if all == 0 || all < missing_mb {
            return None;
        }
        let (mut given, mut mb) = (Vec::new(), 0_u64);
        for stock in inventory.by_shape.values_mut() {
            while mb < missing_mb.max(1)
                && let Some(prewarmed) = stock.ready.pop()
            {
                mb += prewarmed.shape().prewarmed_mb();
                given.push(prewarmed);
            }
        }
        Some(given)
    }

    /// Whether those that are starting have `missing_mb` MiB, which they will free once they are ready.
    pub(crate) fn starting_have(&self, missing_mb: u64) -> bool {
        let inventory = lock(&self.inventory);
        let starting = |(shape, stock): (&SandboxShape, &ShapeInventory)| {
            shape.prewarmed_mb() * stock.starting as u64
        };
        missing_mb <= inventory.by_shape.iter().map(starting).sum()
    }

    /// Returns all that are ready to be stopped, for a start that finds no other room.
    pub(crate) fn free_all(&self) -> Vec<PrewarmedSandbox> {
        lock(&self.inventory)
            .by_shape
            .values_mut()
            .flat_map(|stock| stock.ready.drain(..))
            .collect()
    }

    /// Waits until there may be something to start.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn notify_changed(&self) {
        self.changed.notify_one();
    }

    /// How many of a family are ready.
    pub(crate) fn ready(&self, family: RuntimeFamily) -> usize {
        let inventory = lock(&self.inventory);
        let of_family = inventory.by_shape.iter().filter(|(shape, _)| shape.family == family);
        of_family.map(|(_, stock)| stock.ready.len()).sum()
    }

    /// Whether none is left or starting.
    pub(crate) fn is_empty(&self) -> bool {
        let inventory = lock(&self.inventory);
        let left = |stock: &ShapeInventory| stock.starting + stock.ready.len();
        inventory.dead.is_empty() && inventory.by_shape.values().map(left).sum::<usize>() == 0
    }

    /// The shape of the next one to start, which counts as starting from here on.
    pub(super) fn begin(&self) -> Option<SandboxShape> {
        let now = Instant::now();
        let mut inventory = lock(&self.inventory);
        if inventory.closed {
            return None;
        }
        inventory.by_shape.retain(|_, stock| {
            !stock.demand.is_over(now) || 0 < stock.starting + stock.ready.len()
        });
        let all: Vec<_> =
            inventory.by_shape.iter().map(|(shape, stock)| stock.status(*shape)).collect();
        let shape = demand::next(&all, now, &self.bounds)?;
        inventory.by_shape.entry(shape).or_default().starting += 1;
        Some(shape)
    }

    /// The start that `begin` began has ended. Returns a sandbox that comes too late.
    pub(super) fn end(
        &self,
        shape: SandboxShape,
        started: Option<PrewarmedSandbox>,
    ) -> Option<PrewarmedSandbox> {
        let mut inventory = lock(&self.inventory);
        let closed = inventory.closed;
        let stock = inventory.by_shape.entry(shape).or_default();
        stock.starting = stock.starting.saturating_sub(1);
        if closed {
            return started;
        }
        stock.ready.extend(started);
        None
    }

    /// Removes those that have died and those that are not needed.
    pub(super) fn take_unneeded(&self) -> Vec<PrewarmedSandbox> {
        let now = Instant::now();
        let mut inventory = lock(&self.inventory);
        let PrewarmInventory { by_shape, dead, .. } = &mut *inventory;
        let mut unneeded = std::mem::take(dead);
        for stock in by_shape.values_mut() {
            unneeded.extend(stock.ready.extract_if(.., |prewarmed| !prewarmed.is_alive()));
            // The demand goes up and down: one more than needed is kept.
            let enough = match stock.demand.wanted(now, &self.bounds) {
                0 => 0,
                wanted => wanted + 1,
            };
            while enough < stock.ready.len() {
                unneeded.extend(stock.ready.pop());
            }
        }
        unneeded
    }

    /// Where starts had to wait for room lately: since when a sandbox must have been idle to be stopped for a
    /// prewarmed one.
    pub(super) fn may_replace_idle_since(&self) -> Option<Instant> {
        let inventory = lock(&self.inventory);
        let shortage = inventory.shortage_at.is_some_and(|at| at.elapsed() < SHORTAGE_MEMORY);
        inventory.starts.get(IDLE_STARTS - 1).filter(|_| shortage).copied()
    }

    /// MiB by which a prewarmed sandbox of the shape that was last used grows into a function's sandbox.
    pub(super) fn growth_mb(&self) -> u64 {
        let inventory = lock(&self.inventory);
        let used = inventory.by_shape.iter().filter(|(_, stock)| stock.demand.last.is_some());
        let last = used.max_by_key(|(_, stock)| stock.demand.last);
        last.map_or(0, |(shape, _)| u64::from(shape.memory_mb).saturating_sub(shape.prewarmed_mb()))
    }

    /// A sandbox had to be stopped for a prewarmed one: the shortage of room lasts.
    pub(super) fn note_shortage(&self) {
        lock(&self.inventory).shortage_at = Some(Instant::now());
    }

    /// Removes all; none is added from here on.
    pub(super) fn close(&self) -> Vec<PrewarmedSandbox> {
        let mut inventory = lock(&self.inventory);
        inventory.closed = true;
        let PrewarmInventory { by_shape, dead, .. } = &mut *inventory;
        let mut all = std::mem::take(dead);
        all.extend(by_shape.values_mut().flat_map(|stock| stock.ready.drain(..)));
        all
    }
}

impl PrewarmInventory {
    fn take(&mut self, shape: SandboxShape) -> Option<PrewarmedSandbox> {
        let stock = self.by_shape.get_mut(&shape)?;
        loop {
            match stock.ready.pop() {
                Some(prewarmed) if !prewarmed.is_alive() => self.dead.push(prewarmed),
                other => return other,
            }
        }
    }
}

impl ShapeInventory {
    fn status(&self, shape: SandboxShape) -> ShapeStatus<SandboxShape> {
        let existing = self.ready.len() + self.starting;
        ShapeStatus { shape, demand: self.demand, existing, memory_mb: shape.prewarmed_mb() }
    }
}
