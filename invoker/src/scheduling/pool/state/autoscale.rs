//! Whether another sandbox would do more work, or only share the processor with the others: found
//! by counting what is done before and after a start, while a line stands.

use std::time::Duration;

use tokio::time::Instant;

/// Events that take longer are too few to count between two starts; what they tell is how long
/// they took.
const SHORT: Duration = Duration::from_millis(25);
/// Events that take less, the wait for a processor included, keep the machine busy with few
/// sandboxes: so many for each processor. Rates of so many events are too alike to tell more.
const TINY: Duration = Duration::from_millis(1);
const TINY_SANDBOXES: usize = 2;
/// An event counts as one of at most four times the typical time, and of so much more.
const OUTLIER: Duration = Duration::from_micros(100);
/// Counting takes so long at least, and so many times the time of an event.
const COUNT_FOR: Duration = Duration::from_millis(100);
const COUNT_EVENTS: u32 = 10;
/// Of long events, so many that ended since the last start tell how long they take now.
const TELL: u64 = 4;
/// A step was worth it that brought this part of what it would have brought with a processor for
/// each sandbox.
const WORTH: f64 = 1.0 / 3.0;
/// A peak is believed when it was seen so often in a row.
const LOOKS: u32 = 2;
/// After a peak was found, and after each further one at the same place: the next try.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// A lane's way up, from one sandbox to as many as serve best.
#[derive(Debug, Default)]
pub(super) struct Autoscaler {
    served: u64,
    /// How long an event keeps its sandbox, but for those few that take much longer.
    typical: Option<Duration>,
    mark: Option<CountingPeriod>,
    before: Option<MeasuredRate>,
    /// Looks in a row that saw no gain.
    doubts: u32,
    /// Whether the last step was worth it.
    rising: bool,
    peak: Option<ThroughputPeak>,
}

/// What there is to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadSample {
    pub(super) now: Instant,
    /// Sandboxes that are up.
    pub(super) up: usize,
    /// The machine's processors.
    pub(super) cores: usize,
    /// Since when there has been a line.
    pub(super) line_since: Instant,
    /// Nobody waits longer for long events to tell.
    pub(super) patience: Duration,
}

/// What was seen since the last start.
enum RateEstimate {
    /// Events done in a second.
    PerSecond(f64),
    /// Not enough yet.
    TooLittle,
    /// Not enough, and it takes too long.
    Nothing,
}

/// Where counting began.
#[derive(Clone, Copy, Debug)]
struct CountingPeriod {
    at: Instant,
    served: u64,
    sandboxes: usize,
}

/// What so many sandboxes did in a second.
#[derive(Clone, Copy, Debug)]
struct MeasuredRate {
    sandboxes: usize,
    per_s: f64,
}

/// More sandboxes were of no use.
#[derive(Clone, Copy, Debug)]
struct ThroughputPeak {
    sandboxes: usize,
    service: Duration,
    until: Instant,
    pause: Duration,
}

impl Autoscaler {
    /// How many starts the next step may have: one, and when that was worth it, `most`.
    pub(super) fn step(&self, most: usize) -> usize {
        if self.rising { most } else { 1 }
    }

    /// An event gave its sandbox back, after this time.
    pub(super) fn served(&mut self, took: Duration) {
        self.served += 1;
        // One that the machine kept waiting does not make the function another.
        let next = |typical: Duration| (typical * 15 + took.min(typical * 4 + OUTLIER)) / 16;
        self.typical = Some(self.typical.map_or(took, next));
    }

    /// How many more sandboxes may be of use, as short as events are.
    pub(super) fn of_use(&self, up: usize, cores: usize) -> usize {
        match self.typical {
            Some(typical) if typical < TINY => (TINY_SANDBOXES * cores).saturating_sub(up),
            Some(_) | None => usize::MAX,
        }
    }

    /// Whether another step up may be made. Asked again and again while there is a line and no
    /// start is under way: it takes some time to tell.
    pub(super) fn goes_on(&mut self, look: LoadSample) -> bool {
        let LoadSample { now, up, cores, .. } = look;
        let service = self.typical.unwrap_or_default();
        if self.peak.is_some_and(|peak| peak.holds(now, up, service)) {
            return false;
        }
        let per_s = match self.rate(look) {
            RateEstimate::PerSecond(per_s) => per_s,
            RateEstimate::Nothing => return true,
            RateEstimate::TooLittle => return false,
        };
        if up as f64 / per_s < TINY.as_secs_f64() && TINY_SANDBOXES * cores <= up {
            return false;
        }
        let step = self.before.filter(|before| before.sandboxes < up && 0.0 < before.per_s);
        let worth = step.is_none_or(|before| {
            let ideal = up as f64 / before.sandboxes as f64 - 1.0;
            1.0 + ideal * WORTH <= per_s / before.per_s
        });
        if worth {
            self.doubts = 0;
            self.rising = step.is_some();
            self.before = Some(MeasuredRate { sandboxes: up, per_s });
            return true;
        }
        // Looked at once more.
        self.mark = None;
        self.doubts += 1;
        if LOOKS <= self.doubts {
            self.doubts = 0;
            self.rising = false;
            self.before = None;
            let again = self.peak.filter(|peak| peak.is_of(service));
            let pause = again.map_or(PAUSE.0, |peak| (peak.pause * 2).min(PAUSE.1));
            self.peak = Some(ThroughputPeak { sandboxes: up, service, until: now + pause, pause });
        }
        false
    }

    /// What is done in a second. Only while a line stands is it what the sandboxes can do. Long
    /// events are not counted: while there is a line all sandboxes are in use, so what they do
    /// follows from how long an event takes.
    fn rate(&mut self, look: LoadSample) -> RateEstimate {
        let LoadSample { now, up, line_since, patience, .. } = look;
        let service = self.typical.unwrap_or_default();
        let fits = |mark: &CountingPeriod| mark.sandboxes == up && line_since <= mark.at;
        let Some(mark) = self.mark.filter(fits) else {
            self.mark = Some(CountingPeriod { at: now, served: self.served, sandboxes: up });
            return RateEstimate::TooLittle;
        };
        let served = self.served - mark.served;
        let counted = now.saturating_duration_since(mark.at);
        if SHORT < service {
            return if TELL.max(up as u64) <= served {
                RateEstimate::PerSecond(up as f64 / service.as_secs_f64())
            } else if patience <= counted {
                RateEstimate::Nothing
            } else {
                RateEstimate::TooLittle
            };
        }
        if COUNT_FOR.max(service * COUNT_EVENTS) <= counted {
            RateEstimate::PerSecond(served as f64 / counted.as_secs_f64())
        } else {
            RateEstimate::TooLittle
        }
    }
}

impl ThroughputPeak {
    fn holds(&self, now: Instant, up: usize, service: Duration) -> bool {
        now < self.until && self.sandboxes <= up && self.is_of(service)
    }

    /// Whether the events are still of the kind that it was found with.
    fn is_of(&self, service: Duration) -> bool {
        service <= self.service * 2 && self.service <= service * 2
    }
}
