//! The line of events: what was done to the servers, when, and what was found wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong things that are kept; more are only counted.
const WRONG_MAX: usize = 200;

/// What happens to a server from outside, as far as answers may show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// The server's process is away.
    Server,
    /// A sandbox or its container was ended.
    Sandbox,
    /// The Docker engine is away.
    Engine,
    /// The database or the queue is away or silent.
    Store,
    /// The data folder's disk is full.
    Disk,
}

/// A connection breaks at once when its server dies.
const BREAK_AFTERMATH: Duration = Duration::from_secs(1);

impl Trial {
    const ALL: [Self; 5] = [Self::Server, Self::Sandbox, Self::Engine, Self::Store, Self::Disk];

    /// So long after it refusals and failures may still come of it. A sandbox's end is noticed at
    /// once; a start has 30 s, and the engine and the store are asked again every few seconds.
    fn aftermath(self) -> Duration {
        match self {
            Self::Sandbox => Duration::from_secs(3),
            Self::Server | Self::Engine | Self::Store | Self::Disk => Duration::from_secs(20),
        }
    }
}

/// A trial's number, to end it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrialId(usize);

#[derive(Debug)]
struct Span {
    trial: Trial,
    /// The server that it befalls; both if `None`.
    world: Option<usize>,
    from: Instant,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<(Duration, String)>,
    spans: Vec<Span>,
    wrong: Vec<(Duration, String)>,
    wrong_count: usize,
}

/// Everything that happened, in order.
#[derive(Debug)]
pub(crate) struct Chronicle {
    begun: Instant,
    kept: Mutex<Kept>,
}

impl Chronicle {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is since the beginning.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Writes down an event.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let age = self.age();
        self.kept().lines.push((age, text.into()));
    }

    /// Writes down what must not be.
    pub(crate) fn wrong(&self, text: impl Into<String>) {
        let (age, text) = (self.age(), text.into());
        let mut kept = self.kept();
        kept.wrong_count += 1;
        if kept.wrong.len() < WRONG_MAX {
            kept.lines.push((age, format!("WRONG: {text}")));
            kept.wrong.push((age, text));
        }
    }

    /// From now on this befalls the server with this number, or both.
    pub(crate) fn begins(&self, trial: Trial, world: Option<usize>) -> TrialId {
        let mut kept = self.kept();
        kept.spans.push(Span { trial, world, from: Instant::now(), until: None });
        TrialId(kept.spans.len() - 1)
    }

    /// It is over.
    pub(crate) fn ends(&self, id: TrialId) {
        if let Some(span) = self.kept().spans.get_mut(id.0) {
            span.until = Some(Instant::now());
        }
    }

    /// The times of such trials of this server; those that go on end now.
    pub(crate) fn spans(&self, world: usize, trials: &[Trial]) -> Vec<(Instant, Instant)> {
        let now = Instant::now();
        let kept = self.kept();
        let ours = kept.spans.iter().filter(|span| span.world.is_none_or(|whom| whom == world));
        ours.filter(|span| trials.contains(&span.trial))
            .map(|span| (span.from, span.until.unwrap_or(now)))
            .collect()
    }

    /// Whether a trial of this server explains trouble of a call that was sent then.
    pub(crate) fn explains(&self, world: usize, since: Instant) -> bool {
        let touches = |trial: Trial| {
            let aftermath = trial.aftermath();
            self.spans(world, &[trial]).iter().any(|(_, until)| since <= *until + aftermath)
        };
        Trial::ALL.into_iter().any(touches)
    }

    /// Whether the server's end explains that a connection broke.
    pub(crate) fn explains_break(&self, world: usize, since: Instant) -> bool {
        let ends = self.spans(world, &[Trial::Server]);
        ends.iter().any(|(_, until)| since <= *until + BREAK_AFTERMATH)
    }

    /// What was wrong: how many, and the first.
    pub(crate) fn wrongs(&self) -> (usize, Vec<String>) {
        let kept = self.kept();
        let shown = kept.wrong.iter().map(|(age, text)| format!("{} {text}", stamp(*age)));
        (kept.wrong_count, shown.collect())
    }

    /// Every line, with its time.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept().lines.iter().map(|(age, text)| format!("{} {text}", stamp(*age))).collect()
    }
}

/// Seconds since the beginning.
fn stamp(age: Duration) -> String {
    format!("{:>8.3} s", age.as_secs_f64())
}
