//! The log of a soak: faults with their times, and violations of what must hold.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Violations whose text is kept; beyond these they are only counted.
const VIOLATIONS_MAX: usize = 200;

/// Which part of a server's surroundings a fault takes away, as far as answers may show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// The server's process does not run.
    Server,
    /// A sandbox or its container was ended.
    Sandbox,
    /// The Docker engine does not run.
    Engine,
    /// The database or the queue does not answer.
    Store,
    /// The data folder's disk is full.
    Disk,
}

/// A connection breaks at once when its server is killed.
const DISCONNECT_AFTERMATH: Duration = Duration::from_secs(1);

impl OutageKind {
    const ALL: [Self; 5] = [Self::Server, Self::Sandbox, Self::Engine, Self::Store, Self::Disk];

    /// How long after its end it may still cause refusals and failures. A sandbox's end is noticed
    /// at once; a start may take 30 s, and the engine and the store are polled every few seconds.
    fn aftermath(self) -> Duration {
        match self {
            Self::Sandbox => Duration::from_secs(3),
            Self::Server | Self::Engine | Self::Store | Self::Disk => Duration::from_secs(20),
        }
    }
}

/// Names an outage that was begun, to end it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutageId(usize);

#[derive(Debug)]
struct OutageRecord {
    kind: OutageKind,
    /// The affected server; both if `None`.
    server: Option<usize>,
    from: Instant,
    until: Option<Instant>,
}

/// From when to when an outage lasted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutageWindow {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

#[derive(Debug, Default)]
struct EventLogState {
    lines: Vec<(Duration, String)>,
    outages: Vec<OutageRecord>,
    violations: Vec<(Duration, String)>,
    violation_count: usize,
}

/// All entries, in the order of time.
#[derive(Debug)]
pub(crate) struct EventLog {
    begun: Instant,
    state: Mutex<EventLogState>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, EventLogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the log was begun.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn record(&self, text: impl Into<String>) {
        let age = self.age();
        self.state().lines.push((age, text.into()));
    }

    /// Records that something which must hold does not.
    pub(crate) fn report_violation(&self, text: impl Into<String>) {
        let (age, text) = (self.age(), text.into());
        let mut state = self.state();
        state.violation_count += 1;
        if state.violations.len() < VIOLATIONS_MAX {
            state.lines.push((age, format!("WRONG: {text}")));
            state.violations.push((age, text));
        }
    }

    /// An outage of one server, or of both if `server` is `None`, begins now.
    pub(crate) fn begin_outage(&self, kind: OutageKind, server: Option<usize>) -> OutageId {
        let mut state = self.state();
        state.outages.push(OutageRecord { kind, server, from: Instant::now(), until: None });
        OutageId(state.outages.len() - 1)
    }

    pub(crate) fn end_outage(&self, id: OutageId) {
        if let Some(outage) = self.state().outages.get_mut(id.0) {
            outage.until = Some(Instant::now());
        }
    }

    /// This server's outages of these kinds; one that has not ended counts until now.
    pub(crate) fn outages(&self, server: usize, kinds: &[OutageKind]) -> Vec<OutageWindow> {
        let now = Instant::now();
        let state = self.state();
        let ours = state.outages.iter().filter(|each| each.server.is_none_or(|one| one == server));
        ours.filter(|outage| kinds.contains(&outage.kind))
            .map(|outage| OutageWindow { from: outage.from, until: outage.until.unwrap_or(now) })
            .collect()
    }

    /// Whether an outage of this server can be why a call that was sent at `since` failed.
    pub(crate) fn explains_failure(&self, server: usize, since: Instant) -> bool {
        let touches = |kind: OutageKind| {
            let aftermath = kind.aftermath();
            self.outages(server, &[kind]).iter().any(|outage| since <= outage.until + aftermath)
        };
        OutageKind::ALL.into_iter().any(touches)
    }

    /// Whether the end of the server's process can be why a connection broke.
    pub(crate) fn explains_disconnect(&self, server: usize, since: Instant) -> bool {
        let kills = self.outages(server, &[OutageKind::Server]);
        kills.iter().any(|outage| since <= outage.until + DISCONNECT_AFTERMATH)
    }

    /// How many violations there were, and the first [`VIOLATIONS_MAX`] of them.
    pub(crate) fn violations(&self) -> (usize, Vec<String>) {
        let state = self.state();
        let texts = state.violations.iter().map(|(age, text)| format!("{} {text}", stamp(*age)));
        (state.violation_count, texts.collect())
    }

    /// All entries as lines with their times.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.state().lines.iter().map(|(age, text)| format!("{} {text}", stamp(*age))).collect()
    }
}

/// An entry's time, in seconds since the log was begun.
fn stamp(age: Duration) -> String {
    format!("{:>8.3} s", age.as_secs_f64())
}
