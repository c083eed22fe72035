//! What must hold when the load is over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::chronicle::Trial;
use crate::ledger::{Run, Way};
use crate::load::World;
use crate::plan::name;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    instant: Instant,
    timestamp: Timestamp,
}

/// What was counted of one server.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: usize,
    pub(crate) ran_again: usize,
    pub(crate) runs: usize,
    pub(crate) ticks: usize,
    pub(crate) ticks_missed: usize,
}

/// A tick comes at most so long after its second where nothing is in its way, and a server that
/// starts knows its timers so soon.
const TICK_SLACK: Duration = Duration::from_millis(1_500);
const TIMERS_UP: Duration = Duration::from_secs(3);
/// After the store is back, a tick's push is tried again within 5 s, and has 10 s.
const PUSH_AGAIN: Duration = Duration::from_secs(16);

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "ticks are named by the machine's time of day")]
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), timestamp: Timestamp::now() }
    }

    /// When it was, or is to be, that second.
    fn instant_of(self, timestamp: Timestamp) -> Instant {
        let ahead = timestamp.duration_since(self.timestamp);
        match Duration::try_from(ahead) {
            Ok(ahead) => self.instant + ahead,
            Err(_) => self.instant - ahead.unsigned_abs(),
        }
    }
}

/// All that one server's ledger shows. `ticking` is when its timer surely ticked.
pub(crate) fn check(world: &World, ticking: (Moment, Moment)) -> Counts {
    let runs = world.ledger.all_runs();
    let wrong = |text: String| {
        world.chronicle.wrong(format!("{}: {text}", name(world.index)));
    };
    let mut by_number: HashMap<&str, Vec<&Run>> = HashMap::new();
    for run in runs.iter().filter(|run| run.way != Way::Tick) {
        by_number.entry(&run.what).or_default().push(run);
    }
    for (number, of_it) in &by_number {
        let Some(way) = of_it.first().map(|run| run.way) else { continue };
        match way {
            Way::Never => wrong(format!("event {number} ran, which must not run")),
            Way::Sync | Way::Web if 1 < of_it.len() => {
                wrong(format!("{} event {number} ran {} times", way.word(), of_it.len()));
            }
            Way::Sync | Way::Web | Way::Queued | Way::Tick => {}
        }
    }
    let mut counts = Counts { runs: runs.len(), ..Counts::default() };
    for accepted in world.ledger.all_accepted() {
        counts.accepted += 1;
        let number = accepted.number.to_string();
        let of_it = by_number.get(number.as_str()).map(Vec::as_slice).unwrap_or_default();
        counts.ran_again += usize::from(1 < of_it.len());
        let id = &accepted.request_id;
        let Some((state, said_at)) = &accepted.end else {
            wrong(format!("the accepted event {number} ({id}) never ended"));
            continue;
        };
        if !of_it.iter().any(|run| run.ended) {
            wrong(format!("event {number} ({id}) {state}, and never ran to its end"));
        }
        if let Some(late) = of_it.iter().find(|run| *said_at < run.begun) {
            let by = late.begun - *said_at;
            wrong(format!("event {number} ({id}) ran {by:?} after its state said {state}"));
        }
    }
    check_ticks(world, &runs, ticking, &mut counts);
    counts
}

/// Each second's tick was queued once, except while the server was away.
fn check_ticks(world: &World, runs: &[Run], ticking: (Moment, Moment), counts: &mut Counts) {
    let mut ticks: BTreeMap<Timestamp, BTreeSet<&str>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.way == Way::Tick) {
        match run.what.parse::<Timestamp>() {
            Ok(at) => {
                ticks.entry(at).or_default().insert(&run.request_id);
            }
            Err(error) => world.chronicle.wrong(format!("tick {}: {error}", run.what)),
        }
    }
    counts.ticks = ticks.len();
    for (at, ids) in ticks.iter().filter(|(_, ids)| 1 < ids.len()) {
        let text =
            format!("{}: the tick of {at} was queued {} times", name(world.index), ids.len());
        world.chronicle.wrong(text);
    }
    let away = world.chronicle.spans(world.index, &[Trial::Server]);
    let stores = world.chronicle.spans(world.index, &[Trial::Store, Trial::Disk]);
    let (from, until) = ticking;
    let first = from.timestamp.as_second() + 1;
    for second in first..until.timestamp.as_second() {
        let Ok(at) = Timestamp::from_second(second) else { continue };
        if ticks.contains_key(&at) {
            continue;
        }
        counts.ticks_missed += 1;
        if !excused(from.instant_of(at), &away, &stores) {
            let text = format!("{}: the tick of {at} was never queued", name(world.index));
            world.chronicle.wrong(text);
        }
    }
}

/// Whether the server was away when the tick was due, or ended before it could push it.
fn excused(due: Instant, away: &[(Instant, Instant)], stores: &[(Instant, Instant)]) -> bool {
    let mut pushed = due + TICK_SLACK;
    for (from, until) in stores {
        if *from <= pushed && due <= *until + PUSH_AGAIN {
            pushed = pushed.max(*until + PUSH_AGAIN);
        }
    }
    away.iter().any(|(from, until)| *from <= pushed && due <= *until + TIMERS_UP)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chronicle::Chronicle;
    use crate::ledger::Ledger;
    use crate::services::Access;

    /// What is found wrong with a ledger that was filled like this.
    fn found(fill: impl Fn(&Ledger)) -> Vec<String> {
        let (ledger, chronicle) = (Arc::new(Ledger::default()), Arc::new(Chronicle::new()));
        fill(&ledger);
        let world =
            World { index: 0, access: Access::default(), ledger, chronicle: chronicle.clone() };
        let now = Moment::now();
        check(&world, (now, now));
        let (_, wrongs) = chronicle.wrongs();
        // Without the time.
        wrongs.iter().filter_map(|w| w.split(" s embedded: ").nth(1)).map(str::to_owned).collect()
    }

    fn run(ledger: &Ledger, run: &str, way: Way, what: &str) {
        assert!(ledger.begins(run, way, what, "id"));
        assert!(ledger.ends(run));
    }

    #[test]
    fn an_event_that_ran_once_and_ended_is_fine_and_may_run_twice_before_its_end() {
        let wrong = found(|ledger| {
            ledger.accepted(1, "one");
            run(ledger, "a", Way::Queued, "1");
            run(ledger, "b", Way::Queued, "1");
            ledger.said_ended("one", "succeeded");
            run(ledger, "c", Way::Sync, "2");
        });
        assert_eq!(wrong, Vec::<String>::new());
    }

    #[test]
    fn lost_ghostly_and_double_runs_are_found() {
        let lost = found(|ledger| ledger.accepted(1, "one"));
        assert_eq!(lost, ["the accepted event 1 (one) never ended"]);
        let idle = found(|ledger| {
            ledger.accepted(1, "one");
            ledger.begins("a", Way::Queued, "1", "one");
            ledger.said_ended("one", "succeeded");
        });
        assert_eq!(idle, ["event 1 (one) succeeded, and never ran to its end"]);
        let ghost = found(|ledger| {
            ledger.accepted(1, "one");
            run(ledger, "a", Way::Queued, "1");
            ledger.said_ended("one", "succeeded");
            run(ledger, "b", Way::Queued, "1");
        });
        assert!(matches!(&ghost[..], [one] if one.contains("after its state said")), "{ghost:?}");
        let double = found(|ledger| {
            run(ledger, "a", Way::Sync, "1");
            run(ledger, "b", Way::Sync, "1");
            run(ledger, "c", Way::Never, "2");
        });
        assert_eq!(double.len(), 2, "{double:?}");
    }

    #[test]
    fn a_tick_that_was_queued_twice_and_one_that_was_not_are_found() {
        let twice = found(|ledger| {
            for id in ["x", "y"] {
                ledger.begins(id, Way::Tick, "2026-01-01T00:00:00Z", id);
            }
        });
        assert_eq!(twice, ["the tick of 2026-01-01T00:00:00Z was queued 2 times"]);
        let again = found(|ledger| {
            for run in ["x", "y"] {
                ledger.begins(run, Way::Tick, "2026-01-01T00:00:00Z", "same");
            }
        });
        assert_eq!(again, Vec::<String>::new(), "one tick's event may run twice");
        let now = Moment::now();
        let later = Moment {
            instant: now.instant + Duration::from_secs(3),
            timestamp: now.timestamp + Duration::from_secs(3),
        };
        let chronicle = Arc::new(Chronicle::new());
        let ledger = Arc::new(Ledger::default());
        let world =
            World { index: 0, access: Access::default(), ledger, chronicle: chronicle.clone() };
        check(&world, (now, later));
        assert_eq!(chronicle.wrongs().0, 2, "{:?}", chronicle.wrongs());
    }

    #[test]
    fn a_missed_tick_is_excused_by_a_server_that_was_away_and_by_nothing_else() {
        let at = |s| Moment::now().instant + Duration::from_secs(s);
        let (t5, t20, t22, t60) = (at(5), at(20), at(22), at(60));
        assert!(!excused(t5, &[(t20, t22)], &[]));
        assert!(excused(at(21), &[(t20, t22)], &[]));
        assert!(excused(at(19), &[(t20, t22)], &[]), "it died with the push on its way");
        assert!(
            !excused(t60, &[(t20, t22)], &[(at(58), at(62))]),
            "the store's absence is waited out"
        );
        assert!(excused(t5, &[(t20, t22)], &[(at(4), at(6))]), "the push could not be made before");
    }
}
