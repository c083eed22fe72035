//! The prewarmed sandboxes of a node: how many of which kind, who takes one, and who makes new ones.
//!
//! Nothing here is touched by a warm call. A cold one takes a prewarmed sandbox if there is one of its
//! kind; the keeper makes another when no start is under way, so that it costs none its processor.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hanshu_core::RuntimeFamily;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::demand::{self, PrewarmBounds, PrewarmDemand, ShapeStatus};
use crate::config::InvokerOptions;
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::SandboxShape;

/// The part of the node's memory that prewarmed sandboxes may have: one in so many.
const MEMORY_PART: u64 = 8;
/// For so long after a start had to wait for room, prewarmed sandboxes may have idle sandboxes stopped, as
/// the next start would.
const PRESSURE: Duration = Duration::from_secs(60);

/// So many cold starts must have gone by a sandbox, idle all the while, before it is stopped for a
/// prewarmed sandbox: the next event is then likelier another's than its own.
const PASSED_BY: usize = 3;

/// The prewarmed sandboxes of a node.
#[derive(Debug)]
pub(crate) struct PrewarmPool {
    bounds: PrewarmBounds,
    shelves: Mutex<PrewarmInventory>,
    /// Starts of functions' sandboxes under way.
    starts: AtomicUsize,
    /// Told when there may be something to make.
    pub(super) changed: Notify,
}

/// A start of a function's sandbox.
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
    by_kind: HashMap<SandboxShape, ShapeInventory>,
    /// Found dead, to be removed.
    dead: Vec<PrewarmedSandbox>,
    /// When a start last had to wait for room.
    short: Option<Instant>,
    /// The last cold starts, of any kind.
    starts: VecDeque<Instant>,
    closed: bool,
}

#[derive(Debug, Default)]
struct ShapeInventory {
    demand: PrewarmDemand,
    /// The last was made last.
    ready: Vec<PrewarmedSandbox>,
    coming: usize,
}

impl PrewarmPool {
    /// None yet, and none ever where the backend has `refused`.
    pub(crate) fn new(options: &InvokerOptions, refused: bool) -> Self {
        let count = |set| usize::try_from(set).unwrap_or(usize::MAX);
        let bounds = PrewarmBounds {
            min: if refused { 0 } else { count(options.prewarmed_min) },
            max: count(options.prewarmed_max),
            memory_mb: options.memory_mb() / MEMORY_PART,
        };
        Self {
            bounds,
            shelves: Mutex::default(),
            starts: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Whether there may be any.
    pub(crate) fn are_on(&self) -> bool {
        0 < self.bounds.min && 0 < self.bounds.max
    }

    /// A prewarmed sandbox for a cold start of this kind, which is counted whether or not there is one.
    pub(crate) fn take(&self, kind: SandboxShape) -> Option<PrewarmedSandbox> {
        if !self.are_on() {
            return None;
        }
        let now = Instant::now();
        let mut shelves = self.lock();
        shelves.starts.truncate(PASSED_BY - 1);
        shelves.starts.push_front(now);
        shelves.by_kind.entry(kind).or_default().demand.note(now);
        let taken = shelves.take(kind);
        drop(shelves);
        self.changed.notify_one();
        taken
    }

    /// The same for a start that waits for room, and was counted.
    pub(crate) fn take_late(&self, kind: SandboxShape) -> Option<PrewarmedSandbox> {
        self.lock().take(kind)
    }

    /// Takes back a prewarmed sandbox whose start is not wanted any more; gives it back, to be discarded,
    /// when there are none any more.
    pub(crate) fn put_back(&self, prewarmed: PrewarmedSandbox) -> Option<PrewarmedSandbox> {
        let mut shelves = self.lock();
        if shelves.closed {
            return Some(prewarmed);
        }
        shelves.by_kind.entry(prewarmed.kind()).or_default().ready.push(prewarmed);
        None
    }

    /// These are the kinds that functions are of.
    pub(crate) fn expect(&self, kinds: impl IntoIterator<Item = SandboxShape>) {
        if !self.are_on() {
            return;
        }
        let mut shelves = self.lock();
        for stock in shelves.by_kind.values_mut() {
            stock.demand.expected = false;
        }
        for kind in kinds {
            shelves.by_kind.entry(kind).or_default().demand.expected = true;
        }
        drop(shelves);
        self.changed.notify_one();
    }

    /// A start begins; it ends when what is given back is dropped. Until then the processor is
    /// for it.
    pub(crate) fn start_begins(self: &Arc<Self>) -> StartInProgress {
        self.starts.fetch_add(1, Ordering::AcqRel);
        StartInProgress(Arc::clone(self))
    }

    pub(super) fn is_start_under_way(&self) -> bool {
        0 < self.starts.load(Ordering::Acquire)
    }

    /// A start waits for room: gives up prewarmed sandboxes if that makes room for `missing_mb` MiB, or
    /// all of them. `None`: they would not.
    pub(crate) fn give_way(&self, missing_mb: u64) -> Option<Vec<PrewarmedSandbox>> {
        let mut shelves = self.lock();
        shelves.short = Some(Instant::now());
        let ready = shelves.by_kind.values().flat_map(|stock| &stock.ready);
        let all: u64 = ready.map(|prewarmed| prewarmed.kind().prewarmed_mb()).sum();
        if all == 0 || all < missing_mb {
            return None;
        }
        let (mut given, mut mb) = (Vec::new(), 0_u64);
        for stock in shelves.by_kind.values_mut() {
            while mb < missing_mb.max(1)
                && let Some(prewarmed) = stock.ready.pop()
            {
                mb += prewarmed.kind().prewarmed_mb();
                given.push(prewarmed);
            }
        }
        Some(given)
    }

    /// Whether those that are being made will be enough, once they are ready and taken or given up.
    pub(crate) fn will_give(&self, missing_mb: u64) -> bool {
        let shelves = self.lock();
        let coming = |(kind, stock): (&SandboxShape, &ShapeInventory)| {
            kind.prewarmed_mb() * stock.coming as u64
        };
        missing_mb <= shelves.by_kind.iter().map(coming).sum()
    }

    /// All that are ready, for a start that finds no other room.
    pub(crate) fn give_up(&self) -> Vec<PrewarmedSandbox> {
        self.lock().by_kind.values_mut().flat_map(|stock| stock.ready.drain(..)).collect()
    }

    /// How many of a runtime are ready.
    pub(crate) fn ready(&self, family: RuntimeFamily) -> usize {
        let shelves = self.lock();
        let of_family = shelves.by_kind.iter().filter(|(kind, _)| kind.family == family);
        of_family.map(|(_, stock)| stock.ready.len()).sum()
    }

    /// Whether none is left, nor being made.
    pub(crate) fn is_empty(&self) -> bool {
        let shelves = self.lock();
        let left = |stock: &ShapeInventory| stock.coming + stock.ready.len();
        shelves.dead.is_empty() && shelves.by_kind.values().map(left).sum::<usize>() == 0
    }

    /// The kind that lacks one, which is from here on being made.
    pub(super) fn begin(&self) -> Option<SandboxShape> {
        let now = Instant::now();
        let mut shelves = self.lock();
        if shelves.closed {
            return None;
        }
        shelves
            .by_kind
            .retain(|_, stock| !stock.demand.is_over(now) || 0 < stock.coming + stock.ready.len());
        let all: Vec<_> = shelves.by_kind.iter().map(|(kind, stock)| stock.shelf(*kind)).collect();
        let kind = demand::next(&all, now, &self.bounds)?;
        shelves.by_kind.entry(kind).or_default().coming += 1;
        Some(kind)
    }

    /// What `begin` began has ended. Gives back what comes too late.
    pub(super) fn end(
        &self,
        kind: SandboxShape,
        made: Option<PrewarmedSandbox>,
    ) -> Option<PrewarmedSandbox> {
        let mut shelves = self.lock();
        let closed = shelves.closed;
        let stock = shelves.by_kind.entry(kind).or_default();
        stock.coming = stock.coming.saturating_sub(1);
        if closed {
            return made;
        }
        stock.ready.extend(made);
        None
    }

    /// Those that have died, and those that are more than enough.
    pub(super) fn useless(&self) -> Vec<PrewarmedSandbox> {
        let now = Instant::now();
        let mut shelves = self.lock();
        let PrewarmInventory { by_kind, dead, .. } = &mut *shelves;
        let mut useless = std::mem::take(dead);
        for stock in by_kind.values_mut() {
            useless.extend(stock.ready.extract_if(.., |prewarmed| !prewarmed.is_alive()));
            // The demand goes up and down: one too many is none too many.
            let enough = match stock.demand.wanted(now, &self.bounds) {
                0 => 0,
                wanted => wanted + 1,
            };
            while enough < stock.ready.len() {
                useless.extend(stock.ready.pop());
            }
        }
        useless
    }

    /// Where starts have had to wait for room lately: since when a sandbox must be idle to be
    /// stopped for a prewarmed sandbox.
    pub(super) fn may_replace(&self) -> Option<Instant> {
        let shelves = self.lock();
        let short = shelves.short.is_some_and(|at| at.elapsed() < PRESSURE);
        shelves.starts.get(PASSED_BY - 1).filter(|_| short).copied()
    }

    /// MiB that a prewarmed sandbox of the kind that was used last lacks to a function's sandbox.
    pub(super) fn growth_mb(&self) -> u64 {
        let shelves = self.lock();
        let used = shelves.by_kind.iter().filter(|(_, stock)| stock.demand.last.is_some());
        let last = used.max_by_key(|(_, stock)| stock.demand.last);
        last.map_or(0, |(kind, _)| u64::from(kind.memory_mb).saturating_sub(kind.prewarmed_mb()))
    }

    /// Still so.
    pub(super) fn stays_short_of_room(&self) {
        self.lock().short = Some(Instant::now());
    }

    /// From here on there are none.
    pub(super) fn close(&self) -> Vec<PrewarmedSandbox> {
        let mut shelves = self.lock();
        shelves.closed = true;
        let PrewarmInventory { by_kind, dead, .. } = &mut *shelves;
        let mut all = std::mem::take(dead);
        all.extend(by_kind.values_mut().flat_map(|stock| stock.ready.drain(..)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, PrewarmInventory> {
        // A panic elsewhere leaves shelves that are still true.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PrewarmInventory {
    fn take(&mut self, kind: SandboxShape) -> Option<PrewarmedSandbox> {
        let stock = self.by_kind.get_mut(&kind)?;
        loop {
            match stock.ready.pop() {
                Some(prewarmed) if !prewarmed.is_alive() => self.dead.push(prewarmed),
                other => return other,
            }
        }
    }
}

impl ShapeInventory {
    fn shelf(&self, kind: SandboxShape) -> ShapeStatus<SandboxShape> {
        let prewarm = self.ready.len() + self.coming;
        ShapeStatus { kind, demand: self.demand, prewarm, memory_mb: kind.prewarmed_mb() }
    }
}
