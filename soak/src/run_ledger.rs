//! The ledger of one server: events that it accepted, and the runs that its functions reported.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How an event reaches its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CallKind {
    Sync,
    Queued,
    Web,
    Tick,
    /// A request that must be refused and never run: its body is invalid, its key is wrong …
    Invalid,
    /// A request to cancel an accepted event.
    Cancel,
}

/// One run of a function's code.
#[derive(Clone, Debug)]
pub(crate) struct FunctionRun {
    pub(crate) kind: CallKind,
    /// The event's number; for a tick, its time.
    pub(crate) event_key: String,
    pub(crate) request_id: String,
    pub(crate) begun: Instant,
    pub(crate) ended: bool,
}

/// An event that the server answered with 202.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgedEvent {
    pub(crate) number: u64,
    pub(crate) request_id: String,
    /// The final state, and when it was first read from the server.
    pub(crate) end: Option<(String, Instant)>,
    pub(crate) cancellation: CancelProgress,
}

/// What was asked and answered about cancelling an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CancelProgress {
    #[default]
    None,
    /// It was asked for.
    Asked,
    /// The server answered that the event has ended as cancelled.
    Confirmed,
}

/// How many calls of each kind ended in each way.
pub(crate) type CallTally = BTreeMap<(CallKind, String), u64>;

#[derive(Debug, Default)]
struct LedgerState {
    runs: HashMap<String, FunctionRun>,
    /// How often a function began to run each numbered event.
    run_counts: HashMap<u64, u32>,
    accepted: HashMap<String, AcknowledgedEvent>,
    /// How many accepted events are not known to have ended.
    open: usize,
    tally: CallTally,
}

/// Shared by the clients, which note what was accepted, and the collector, which notes runs.
#[derive(Debug, Default)]
pub(crate) struct RunLedger {
    next: AtomicU64,
    state: Mutex<LedgerState>,
}

impl CallKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Queued => "queued",
            Self::Web => "web",
            Self::Tick => "tick",
            Self::Invalid => "invalid",
            Self::Cancel => "cancel",
        }
    }

    /// The kind that a function's report names.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let all = [Self::Sync, Self::Queued, Self::Web, Self::Tick, Self::Invalid];
        all.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl RunLedger {
    fn state(&self) -> MutexGuard<'_, LedgerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_event_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a run began; `false` if the report is malformed. One sent twice counts once.
    pub(crate) fn run_began(
        &self,
        run: &str,
        kind: CallKind,
        event_key: &str,
        request_id: &str,
    ) -> bool {
        let mut state = self.state();
        if state.runs.contains_key(run) {
            return true;
        }
        if kind != CallKind::Tick {
            let Ok(number) = event_key.parse() else { return false };
            *state.run_counts.entry(number).or_default() += 1;
        }
        let (event_key, request_id) = (event_key.to_owned(), request_id.to_owned());
        let new = FunctionRun { kind, event_key, request_id, begun: Instant::now(), ended: false };
        state.runs.insert(run.to_owned(), new);
        true
    }

    /// Notes that a run ended; `false` if it never began.
    pub(crate) fn run_ended(&self, run: &str) -> bool {
        let mut state = self.state();
        let Some(run) = state.runs.get_mut(run) else { return false };
        run.ended = true;
        true
    }

    /// How often a function began to run this event.
    pub(crate) fn run_count(&self, number: u64) -> u32 {
        self.state().run_counts.get(&number).copied().unwrap_or_default()
    }

    /// Notes that the server answered 202.
    pub(crate) fn event_accepted(&self, number: u64, request_id: &str) {
        let request_id = request_id.to_owned();
        let accepted = AcknowledgedEvent {
            number,
            request_id: request_id.clone(),
            end: None,
            cancellation: CancelProgress::None,
        };
        let mut state = self.state();
        state.accepted.insert(request_id, accepted);
        state.open += 1;
    }

    /// Notes that the server reports this final state. The first time counts.
    pub(crate) fn event_ended(&self, request_id: &str, final_state: &str) {
        let mut state = self.state();
        let LedgerState { accepted, open, .. } = &mut *state;
        if let Some(accepted) = accepted.get_mut(request_id)
            && accepted.end.is_none()
        {
            accepted.end = Some((final_state.to_owned(), Instant::now()));
            *open -= 1;
        }
    }

    /// Notes what was asked or answered about cancelling this event.
    pub(crate) fn set_cancellation(&self, request_id: &str, cancellation: CancelProgress) {
        if let Some(accepted) = self.state().accepted.get_mut(request_id)
            && accepted.cancellation != CancelProgress::Confirmed
        {
            accepted.cancellation = cancellation;
        }
    }

    /// Whether anybody asked to cancel this event.
    pub(crate) fn cancel_was_asked(&self, request_id: &str) -> bool {
        let state = self.state();
        let accepted = state.accepted.get(request_id);
        accepted.is_some_and(|event| event.cancellation != CancelProgress::None)
    }

    /// Request ids of accepted events that are not known to have ended.
    pub(crate) fn open_request_ids(&self) -> Vec<String> {
        let state = self.state();
        let open = state.accepted.values().filter(|each| each.end.is_none());
        open.map(|each| each.request_id.clone()).collect()
    }

    /// How many accepted events are not known to have ended.
    pub(crate) fn open_count(&self) -> usize {
        self.state().open
    }

    /// Counts one more call of this kind that ended in this way.
    pub(crate) fn count_call(&self, kind: CallKind, result: impl Into<String>) {
        *self.state().tally.entry((kind, result.into())).or_default() += 1;
    }

    pub(crate) fn tally(&self) -> CallTally {
        self.state().tally.clone()
    }

    pub(crate) fn all_runs(&self) -> Vec<FunctionRun> {
        self.state().runs.values().cloned().collect()
    }

    pub(crate) fn all_accepted(&self) -> Vec<AcknowledgedEvent> {
        self.state().accepted.values().cloned().collect()
    }
}
