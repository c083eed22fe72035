//! What one server was given and what its functions did with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How an event comes to its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    Sync,
    Queued,
    Web,
    Tick,
    /// Nothing that the server may run: its body is broken, its key is wrong …
    Never,
}

/// One run of a function's code.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) way: Way,
    /// The event's number; a tick's time.
    pub(crate) what: String,
    pub(crate) request_id: String,
    pub(crate) begun: Instant,
    pub(crate) ended: bool,
}

/// An event that the server answered with 202.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) number: u64,
    pub(crate) request_id: String,
    /// The state that is an end, and when we had read it.
    pub(crate) end: Option<(String, Instant)>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: HashMap<String, Run>,
    /// How often a numbered event was begun.
    begun: HashMap<u64, u32>,
    accepted: HashMap<String, Accepted>,
    /// How many of them are not known to have ended.
    open: usize,
    /// How calls went: what they were, how they ended, how many.
    tally: BTreeMap<(Way, String), u64>,
}

/// The ledger of one server.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: AtomicU64,
    kept: Mutex<Kept>,
}

impl Way {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Queued => "queued",
            Self::Web => "web",
            Self::Tick => "tick",
            Self::Never => "never",
        }
    }

    /// The way that a report names.
    pub(crate) fn of(word: &str) -> Option<Self> {
        let all = [Self::Sync, Self::Queued, Self::Web, Self::Tick, Self::Never];
        all.into_iter().find(|way| way.word() == word)
    }
}

impl Ledger {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A function begins to run. A report that was sent twice counts once.
    pub(crate) fn begins(&self, run: &str, way: Way, what: &str, request_id: &str) -> bool {
        let mut kept = self.kept();
        if kept.runs.contains_key(run) {
            return true;
        }
        if way != Way::Tick {
            let Ok(number) = what.parse() else { return false };
            *kept.begun.entry(number).or_default() += 1;
        }
        let (what, request_id) = (what.to_owned(), request_id.to_owned());
        let new = Run { way, what, request_id, begun: Instant::now(), ended: false };
        kept.runs.insert(run.to_owned(), new);
        true
    }

    /// It came to its end.
    pub(crate) fn ends(&self, run: &str) -> bool {
        let mut kept = self.kept();
        let Some(run) = kept.runs.get_mut(run) else { return false };
        run.ended = true;
        true
    }

    /// How often this event was begun.
    pub(crate) fn begun(&self, number: u64) -> u32 {
        self.kept().begun.get(&number).copied().unwrap_or_default()
    }

    /// The server said 202.
    pub(crate) fn accepted(&self, number: u64, request_id: &str) {
        let request_id = request_id.to_owned();
        let accepted = Accepted { number, request_id: request_id.clone(), end: None };
        let mut kept = self.kept();
        kept.accepted.insert(request_id, accepted);
        kept.open += 1;
    }

    /// The server said that this event has ended. The first time counts.
    pub(crate) fn said_ended(&self, request_id: &str, state: &str) {
        let mut kept = self.kept();
        let Kept { accepted, open, .. } = &mut *kept;
        if let Some(accepted) = accepted.get_mut(request_id)
            && accepted.end.is_none()
        {
            accepted.end = Some((state.to_owned(), Instant::now()));
            *open -= 1;
        }
    }

    /// Those that are not known to have ended.
    pub(crate) fn open(&self) -> Vec<String> {
        let kept = self.kept();
        let open = kept.accepted.values().filter(|each| each.end.is_none());
        open.map(|each| each.request_id.clone()).collect()
    }

    /// How many accepted events are not known to have ended.
    pub(crate) fn open_count(&self) -> usize {
        self.kept().open
    }

    /// One more call that went so.
    pub(crate) fn count(&self, way: Way, how: impl Into<String>) {
        *self.kept().tally.entry((way, how.into())).or_default() += 1;
    }

    pub(crate) fn tally(&self) -> BTreeMap<(Way, String), u64> {
        self.kept().tally.clone()
    }

    pub(crate) fn all_runs(&self) -> Vec<Run> {
        self.kept().runs.values().cloned().collect()
    }

    pub(crate) fn all_accepted(&self) -> Vec<Accepted> {
        self.kept().accepted.values().cloned().collect()
    }
}
