//! Checks after the load that every event and every tick ran as often as it must.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::event_log::{OutageKind, OutageWindow};
use crate::load::ServerUnderTest;
use crate::run_ledger::{CallKind, CancelProgress, FunctionRun};

/// One moment on the monotonic clock and as the time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    instant: Instant,
    timestamp: Timestamp,
}

/// From when to when every second's tick is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickWindow {
    pub(crate) from: ClockReading,
    pub(crate) until: ClockReading,
}

/// How many events, runs and ticks one server had.
#[derive(Debug, Default)]
pub(crate) struct ServerCounts {
    pub(crate) accepted: usize,
    pub(crate) ran_again: usize,
    pub(crate) cancelled: usize,
    pub(crate) runs: usize,
    pub(crate) ticks: usize,
    pub(crate) ticks_missed: usize,
}

/// Longest time from a tick's second to its push while nothing is broken.
const TICK_DELAY_MAX: Duration = Duration::from_millis(1_500);
/// Longest time from a server's start to its first tick.
const TIMER_STARTUP_MAX: Duration = Duration::from_secs(3);
/// Longest time from the store's return to a tick's push: it is tried again within 5 s, and may
/// take 10 s.
const PUSH_RETRY_MAX: Duration = Duration::from_secs(16);

impl ClockReading {
    #[expect(clippy::disallowed_methods, reason = "ticks are named by the machine's time of day")]
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), timestamp: Timestamp::now() }
    }

    /// The same time on the monotonic clock.
    fn instant_of(self, timestamp: Timestamp) -> Instant {
        let ahead = timestamp.duration_since(self.timestamp);
        match Duration::try_from(ahead) {
            Ok(ahead) => self.instant + ahead,
            Err(_) => self.instant - ahead.unsigned_abs(),
        }
    }
}

/// Checks everything that one server's ledger shows.
pub(crate) fn check(target: &ServerUnderTest, window: TickWindow) -> ServerCounts {
    let runs = target.ledger.all_runs();
    let mut runs_of: HashMap<&str, Vec<&FunctionRun>> = HashMap::new();
    for run in runs.iter().filter(|run| run.kind != CallKind::Tick) {
        runs_of.entry(&run.event_key).or_default().push(run);
    }
    for (number, runs) in &runs_of {
        let Some(kind) = runs.first().map(|run| run.kind) else { continue };
        match kind {
            CallKind::Invalid => {
                target.report_violation(&format!("event {number} ran, which must not run"));
            }
            CallKind::Sync | CallKind::Web if 1 < runs.len() => {
                let (kind, times) = (kind.as_str(), runs.len());
                target.report_violation(&format!("{kind} event {number} ran {times} times"));
            }
            CallKind::Sync
            | CallKind::Web
            | CallKind::Queued
            | CallKind::Tick
            | CallKind::Cancel => {}
        }
    }
    let mut counts = ServerCounts { runs: runs.len(), ..ServerCounts::default() };
    for accepted in target.ledger.all_accepted() {
        counts.accepted += 1;
        let number = accepted.number.to_string();
        let runs = runs_of.get(number.as_str()).map(Vec::as_slice).unwrap_or_default();
        counts.ran_again += usize::from(1 < runs.len());
        let event = format!("event {number} ({})", accepted.request_id);
        let Some((state, read_at)) = &accepted.end else {
            target.report_violation(&format!("the accepted {event} never ended"));
            continue;
        };
        let cancelled = state == "cancelled";
        counts.cancelled += usize::from(cancelled);
        if accepted.cancellation == CancelProgress::Confirmed && !cancelled {
            let was = "was answered to have ended as cancelled";
            target.report_violation(&format!("{event} {was}, and {state}"));
        }
        if !cancelled && !runs.iter().any(|run| run.ended) {
            target.report_violation(&format!("{event} {state}, and never ran to its end"));
        }
        if let Some(late) = runs.iter().find(|run| *read_at < run.begun) {
            let by = late.begun - *read_at;
            target.report_violation(&format!("{event} ran {by:?} after it was reported {state}"));
        }
    }
    check_ticks(target, &runs, window, &mut counts);
    counts
}

/// Each second's tick must have been queued once, except while the server did not run.
fn check_ticks(
    target: &ServerUnderTest,
    runs: &[FunctionRun],
    window: TickWindow,
    counts: &mut ServerCounts,
) {
    let mut ticks: BTreeMap<Timestamp, BTreeSet<&str>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.kind == CallKind::Tick) {
        match run.event_key.parse::<Timestamp>() {
            Ok(at) => {
                ticks.entry(at).or_default().insert(&run.request_id);
            }
            Err(error) => target.report_violation(&format!("tick {}: {error}", run.event_key)),
        }
    }
    counts.ticks = ticks.len();
    for (at, ids) in ticks.iter().filter(|(_, ids)| 1 < ids.len()) {
        target.report_violation(&format!("the tick of {at} was queued {} times", ids.len()));
    }
    let server = target.event_log.outages(target.index, &[OutageKind::Server]);
    let stores = target.event_log.outages(target.index, &[OutageKind::Store, OutageKind::Disk]);
    let first = window.from.timestamp.as_second() + 1;
    for second in first..window.until.timestamp.as_second() {
        let Ok(at) = Timestamp::from_second(second) else { continue };
        if ticks.contains_key(&at) {
            continue;
        }
        counts.ticks_missed += 1;
        if !is_excused(window.from.instant_of(at), &server, &stores) {
            target.report_violation(&format!("the tick of {at} was never queued"));
        }
    }
}

/// Whether the server did not run when the tick was due, or was killed before it could push it.
fn is_excused(due: Instant, server: &[OutageWindow], stores: &[OutageWindow]) -> bool {
    let mut pushed = due + TICK_DELAY_MAX;
    for outage in stores {
        if outage.from <= pushed && due <= outage.until + PUSH_RETRY_MAX {
            pushed = pushed.max(outage.until + PUSH_RETRY_MAX);
        }
    }
    server.iter().any(|outage| outage.from <= pushed && due <= outage.until + TIMER_STARTUP_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event_log::EventLog;
    use crate::run_ledger::RunLedger;
    use crate::services::ServerAccess;

    /// The violations in a ledger that was filled like this.
    fn found(fill: impl Fn(&RunLedger)) -> Vec<String> {
        let (ledger, event_log) = (Arc::new(RunLedger::default()), Arc::new(EventLog::new()));
        fill(&ledger);
        let target = ServerUnderTest {
            index: 0,
            access: ServerAccess::default(),
            ledger,
            event_log: event_log.clone(),
        };
        let now = ClockReading::now();
        check(&target, TickWindow { from: now, until: now });
        let (_, violations) = event_log.violations();
        violations
            .iter()
            .filter_map(|w| w.split(" s embedded: ").nth(1))
            .map(str::to_owned)
            .collect()
    }

    fn run(ledger: &RunLedger, run: &str, kind: CallKind, event_key: &str) {
        assert!(ledger.run_began(run, kind, event_key, "id"));
        assert!(ledger.run_ended(run));
    }

    #[test]
    fn an_event_that_ran_once_and_ended_is_fine_and_may_run_twice_before_its_end() {
        let violations = found(|ledger| {
            ledger.event_accepted(1, "one");
            run(ledger, "a", CallKind::Queued, "1");
            run(ledger, "b", CallKind::Queued, "1");
            ledger.event_ended("one", "succeeded");
            run(ledger, "c", CallKind::Sync, "2");
        });
        assert_eq!(violations, Vec::<String>::new());
    }

    #[test]
    fn a_cancelled_event_need_not_end_its_run_but_must_not_run_after_it_was_reported() {
        let fine = found(|ledger| {
            ledger.event_accepted(1, "one");
            ledger.set_cancellation("one", CancelProgress::Asked);
            ledger.run_began("a", CallKind::Queued, "1", "one");
            ledger.event_ended("one", "cancelled");
        });
        assert_eq!(fine, Vec::<String>::new());
        let late = found(|ledger| {
            ledger.event_accepted(1, "one");
            ledger.event_ended("one", "cancelled");
            run(ledger, "a", CallKind::Queued, "1");
        });
        assert!(matches!(&late[..], [one] if one.contains("after it was reported")), "{late:?}");
        let twice = found(|ledger| {
            ledger.event_accepted(1, "one");
            ledger.set_cancellation("one", CancelProgress::Confirmed);
            run(ledger, "a", CallKind::Queued, "1");
            ledger.event_ended("one", "succeeded");
        });
        let expected = "event 1 (one) was answered to have ended as cancelled, and succeeded";
        assert_eq!(twice, [expected]);
    }

    #[test]
    fn lost_late_and_repeated_runs_are_found() {
        let lost = found(|ledger| ledger.event_accepted(1, "one"));
        assert_eq!(lost, ["the accepted event 1 (one) never ended"]);
        let idle = found(|ledger| {
            ledger.event_accepted(1, "one");
            ledger.run_began("a", CallKind::Queued, "1", "one");
            ledger.event_ended("one", "succeeded");
        });
        assert_eq!(idle, ["event 1 (one) succeeded, and never ran to its end"]);
        let late = found(|ledger| {
            ledger.event_accepted(1, "one");
            run(ledger, "a", CallKind::Queued, "1");
            ledger.event_ended("one", "succeeded");
            run(ledger, "b", CallKind::Queued, "1");
        });
        assert!(matches!(&late[..], [one] if one.contains("after it was reported")), "{late:?}");
        let double = found(|ledger| {
            run(ledger, "a", CallKind::Sync, "1");
            run(ledger, "b", CallKind::Sync, "1");
            run(ledger, "c", CallKind::Invalid, "2");
        });
        assert_eq!(double.len(), 2, "{double:?}");
    }

    #[test]
    fn a_tick_that_was_queued_twice_and_one_that_was_not_are_found() {
        let twice = found(|ledger| {
            for id in ["x", "y"] {
                ledger.run_began(id, CallKind::Tick, "2026-01-01T00:00:00Z", id);
            }
        });
        assert_eq!(twice, ["the tick of 2026-01-01T00:00:00Z was queued 2 times"]);
        let again = found(|ledger| {
            for run in ["x", "y"] {
                ledger.run_began(run, CallKind::Tick, "2026-01-01T00:00:00Z", "same");
            }
        });
        assert_eq!(again, Vec::<String>::new(), "one tick's event may run twice");
        let now = ClockReading::now();
        let later = ClockReading {
            instant: now.instant + Duration::from_secs(3),
            timestamp: now.timestamp + Duration::from_secs(3),
        };
        let event_log = Arc::new(EventLog::new());
        let ledger = Arc::new(RunLedger::default());
        let target = ServerUnderTest {
            index: 0,
            access: ServerAccess::default(),
            ledger,
            event_log: event_log.clone(),
        };
        check(&target, TickWindow { from: now, until: later });
        assert_eq!(event_log.violations().0, 2, "{:?}", event_log.violations());
    }

    #[test]
    fn only_a_server_that_did_not_run_excuses_a_missed_tick() {
        let at = |s| ClockReading::now().instant + Duration::from_secs(s);
        let lasting = |from, until| OutageWindow { from, until };
        let (t5, t20, t22, t60) = (at(5), at(20), at(22), at(60));
        assert!(!is_excused(t5, &[lasting(t20, t22)], &[]));
        assert!(is_excused(at(21), &[lasting(t20, t22)], &[]));
        assert!(is_excused(at(19), &[lasting(t20, t22)], &[]), "it was killed during the push");
        assert!(
            !is_excused(t60, &[lasting(t20, t22)], &[lasting(at(58), at(62))]),
            "the push waits for the store"
        );
        assert!(
            is_excused(t5, &[lasting(t20, t22)], &[lasting(at(4), at(6))]),
            "the push could not be made before"
        );
    }
}
