//! Whether another sandbox would serve more events, or only share the processor with the others.
//!
//! One sandbox for each waiting call was not enough: starts take the processor from the calls. Nor was
//! starting one whenever the queue takes longer than a cold start: a function of 5 ms with sixteen
//! callers stayed at one sandbox, since its queue was always shorter than a start, and one that computes
//! for 20 ms got sandbox after sandbox, since sharing the processor made its events and so its queue
//! longer. So sandboxes are added in steps while there is a backlog, and the events served in a second
//! before and after each step decide whether a further one follows. In the simulated machine of
//! `tests/load.rs` (two cores) trivial functions reach 0.99 of the possible rate with 2 or 3 sandboxes,
//! and the one that computes stays at 8 or fewer for 64 callers (docs/adr/0014).

use std::time::Duration;

use tokio::time::Instant;

/// Events that take longer are too few to count between two starts; their average time is used
/// instead.
const SHORT_EVENT: Duration = Duration::from_millis(25);
/// Events that take less, the wait for a processor included, keep the machine busy with this many
/// sandboxes for each processor. Rates of so many events differ too little to show the use of more.
const TINY_EVENT: Duration = Duration::from_millis(1);
const TINY_EVENT_SANDBOXES: usize = 2;
/// An event counts with at most four times the typical time and this much more.
const OUTLIER_MARGIN: Duration = Duration::from_micros(100);
/// Counting takes at least this long, and at least the time of this many events.
const COUNT_FOR: Duration = Duration::from_millis(100);
const COUNT_EVENTS: u32 = 10;
/// Long events that must have ended since the last start for their average time to be used.
const LONG_EVENTS_MIN: u64 = 4;
/// A step was useful if it brought this part of what a processor for each sandbox would have brought.
const USEFUL_GAIN: f64 = 1.0 / 3.0;
/// Consecutive measurements without a gain that end the way up.
const PEAK_MEASUREMENTS: u32 = 2;
/// From a peak to the next try: at first, and at most. It doubles with each peak of the same kind.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Finds the number of sandboxes with which a lane serves most events.
#[derive(Debug, Default)]
pub(super) struct Autoscaler {
    served: u64,
    /// How long an event keeps its sandbox, without the few that take much longer.
    typical: Option<Duration>,
    counting: Option<CountingPeriod>,
    before: Option<MeasuredRate>,
    /// Consecutive measurements without a gain.
    without_gain: u32,
    /// Whether the last step was useful.
    rising: bool,
    peak: Option<ThroughputPeak>,
}

/// The load of a lane at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadSample {
    pub(super) now: Instant,
    /// Sandboxes that are up.
    pub(super) up: usize,
    /// The machine's processors.
    pub(super) cores: usize,
    /// Since when there has been a backlog.
    pub(super) backlog_since: Instant,
    /// Limit of waiting for long events to end.
    pub(super) patience: Duration,
}

/// What was measured since the last start.
enum RateEstimate {
    /// Events served in a second.
    PerSecond(f64),
    /// Too little so far.
    TooLittle,
    /// Too little, and waiting for more takes too long.
    Nothing,
}

/// When counting began.
#[derive(Clone, Copy, Debug)]
struct CountingPeriod {
    at: Instant,
    served: u64,
    sandboxes: usize,
}

/// The events that some sandboxes served in a second.
#[derive(Clone, Copy, Debug)]
struct MeasuredRate {
    sandboxes: usize,
    per_s: f64,
}

/// The number of sandboxes beyond which more were of no use.
#[derive(Clone, Copy, Debug)]
struct ThroughputPeak {
    sandboxes: usize,
    service: Duration,
    until: Instant,
    retry: Duration,
}

impl Autoscaler {
    /// Starts of the next step: one, or `most` after a useful step.
    pub(super) fn step_size(&self, most: usize) -> usize {
        if self.rising { most } else { 1 }
    }

    /// An event has used its sandbox for this time.
    pub(super) fn served(&mut self, took: Duration) {
        self.served += 1;
        // A single event that the machine delayed does not change the function's typical time.
        let next = |typical: Duration| (typical * 15 + took.min(typical * 4 + OUTLIER_MARGIN)) / 16;
        self.typical = Some(self.typical.map_or(took, next));
    }

    /// How many more sandboxes may be of use, judged by how short events are.
    pub(super) fn useful_sandboxes(&self, up: usize, cores: usize) -> usize {
        match self.typical {
            Some(typical) if typical < TINY_EVENT => {
                (TINY_EVENT_SANDBOXES * cores).saturating_sub(up)
            }
            Some(_) | None => usize::MAX,
        }
    }

    /// Whether another step may be made. Called again and again while there is a backlog and no start is
    /// in progress: a measurement takes some time.
    pub(super) fn may_step(&mut self, sample: LoadSample) -> bool {
        let LoadSample { now, up, cores, .. } = sample;
        let service = self.typical.unwrap_or_default();
        if self.peak.is_some_and(|peak| peak.holds(now, up, service)) {
            return false;
        }
        let per_s = match self.measure(sample) {
            RateEstimate::PerSecond(per_s) => per_s,
            RateEstimate::Nothing => return true,
            RateEstimate::TooLittle => return false,
        };
        if up as f64 / per_s < TINY_EVENT.as_secs_f64() && TINY_EVENT_SANDBOXES * cores <= up {
            return false;
        }
        let step = self.before.filter(|before| before.sandboxes < up && 0.0 < before.per_s);
        let useful = step.is_none_or(|before| {
            let ideal = up as f64 / before.sandboxes as f64 - 1.0;
            1.0 + ideal * USEFUL_GAIN <= per_s / before.per_s
        });
        if useful {
            self.without_gain = 0;
            self.rising = step.is_some();
            self.before = Some(MeasuredRate { sandboxes: up, per_s });
            return true;
        }
        // Measured once more before it is believed.
        self.counting = None;
        self.without_gain += 1;
        if PEAK_MEASUREMENTS <= self.without_gain {
            self.without_gain = 0;
            self.rising = false;
            self.before = None;
            let again = self.peak.filter(|peak| peak.is_of(service));
            let retry = again.map_or(RETRY_FIRST, |peak| (peak.retry * 2).min(RETRY_MAX));
            self.peak = Some(ThroughputPeak { sandboxes: up, service, until: now + retry, retry });
        }
        false
    }

    /// The events served in a second. Only during a backlog are these what the sandboxes can serve.
    /// Long events are not counted: during a backlog all sandboxes are in use, so the rate follows from
    /// how long an event takes.
    fn measure(&mut self, sample: LoadSample) -> RateEstimate {
        let LoadSample { now, up, backlog_since, patience, .. } = sample;
        let service = self.typical.unwrap_or_default();
        let fits = |period: &CountingPeriod| period.sandboxes == up && backlog_since <= period.at;
        let Some(period) = self.counting.filter(fits) else {
            self.counting = Some(CountingPeriod { at: now, served: self.served, sandboxes: up });
            return RateEstimate::TooLittle;
        };
        let served = self.served - period.served;
        let counted = now.saturating_duration_since(period.at);
        if SHORT_EVENT < service {
            return if LONG_EVENTS_MIN.max(up as u64) <= served {
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

    /// Whether events take about as long as when it was found.
    fn is_of(&self, service: Duration) -> bool {
        service <= self.service * 2 && self.service <= service * 2
    }
}
