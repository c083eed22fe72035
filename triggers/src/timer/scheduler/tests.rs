//! Timers under virtual time.

use hanshu_core::{Clock as _, RedisTrigger, TriggerSpec};
use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::test_support::{
    FakeCatalog, FakeQueue, START, TokioClock, intake, revision, trigger_id,
};
use crate::timer::fire_timer;
use crate::trigger_watch::TriggersFeed;

struct TimerTest {
    clock: Arc<TokioClock>,
    queue: Arc<FakeQueue>,
    intake: Arc<EventIntake>,
    feed: TriggersFeed,
    view: TriggersView,
    tasks: tokio::task::JoinSet<()>,
    stop: StopSignals,
}

fn timer(name: &str, cron: &str) -> Trigger {
    let timer = TimerTrigger { cron: cron.into(), timezone: None, argument: "text".into() };
    let spec = TriggerSpec::new(timer);
    Trigger { id: trigger_id(name), spec, enabled: true }
}

impl TimerTest {
    fn new() -> Self {
        let clock = TokioClock::new();
        let queue = FakeQueue::new(clock.clone());
        let catalog = FakeCatalog::of([revision("hello", None)]);
        let intake = intake(catalog, queue.clone(), clock.clone());
        let (feed, view) = TriggersFeed::new();
        let (tasks, stop) = (tokio::task::JoinSet::new(), StopSignals::default());
        Self { clock, queue, intake, feed, view, tasks, stop }
    }

    /// One node's timers.
    fn start(&mut self) {
        let timers = TimerScheduler::new(self.intake.clone(), TimerOptions::default());
        self.tasks.spawn(timers.run(self.view.clone(), self.stop.clone()));
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Seconds after the start of the ticks that are queued, in order.
    fn ticks(&self) -> Vec<i64> {
        let start: Timestamp = START.parse().unwrap();
        let kept = self.queue.kept.lock().unwrap();
        let ticks = kept.iter().map(|kept| kept.event.tick.clone().unwrap().at);
        ticks.map(|at| at.as_second() - start.as_second()).collect()
    }

    fn set_unavailable(&self, unavailable: bool) {
        *self.queue.unavailable.lock().unwrap() = unavailable;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_each_second_is_queued_once_by_two_nodes() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("every-second", "* * * * * * *")]);
    test.start();
    test.start();
    tokio::time::sleep(Duration::from_millis(120_500)).await;
    assert_eq!(test.ticks(), (1..=120).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_timers_tick_in_their_second() {
    let mut test = TimerTest::new();
    let timers: Vec<_> = (0..10_000).map(|n| timer(&format!("t{n}"), "*/5 * * * * *")).collect();
    test.feed.replace(timers);
    test.start();
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    let ticks = test.ticks();
    assert_eq!(ticks.len(), 20_000);
    assert!(ticks.iter().all(|tick| [5, 10].contains(tick)));
}

#[tokio::test(start_paused = true)]
async fn an_event_reads_as_scfs_does() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("EveryDay", "30 0 18 * * * *")]);
    test.start();
    test.pass(40).await;
    let kept = test.queue.kept.lock().unwrap();
    let event: Value = serde_json::from_slice(&kept[0].event.event.payload).unwrap();
    let expected = json!({
        "Type": "Timer", "TriggerName": "EveryDay", "Time": "2026-11-22T18:00:30Z",
        "Message": "text",
    });
    assert_eq!((event, kept.len()), (expected, 1));
    assert_eq!(kept[0].event.queue.to_string(), "default/hello/EveryDay");
}

#[tokio::test(start_paused = true)]
async fn changes_of_triggers_are_followed() {
    let mut test = TimerTest::new();
    test.start();
    test.feed.replace(vec![timer("a", "*/10 * * * * *"), timer("b", "bad line")]);
    test.pass(15).await;
    assert_eq!(test.ticks(), [10]);
    test.feed.replace(vec![timer("a", "*/4 * * * * *")]);
    test.pass(6).await;
    assert_eq!(test.ticks(), [10, 16, 20]);
    let mut off = timer("a", "*/4 * * * * *");
    off.enabled = false;
    test.feed.replace(vec![off]);
    test.pass(60).await;
    assert_eq!(test.ticks(), [10, 16, 20]);
}

#[tokio::test(start_paused = true)]
async fn ticks_wait_for_an_unavailable_queue_and_stay_in_order() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "*/5 * * * * *")]);
    test.start();
    test.pass(7).await;
    test.set_unavailable(true);
    test.pass(30).await;
    assert_eq!(test.ticks(), [5]);
    test.set_unavailable(false);
    test.pass(10).await;
    assert_eq!(test.ticks(), [5, 10, 15, 20, 25, 30, 35, 40, 45]);
}

#[tokio::test(start_paused = true)]
async fn ticks_older_than_a_minute_are_given_up() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "*/5 * * * * *")]);
    test.start();
    test.set_unavailable(true);
    test.pass(303).await;
    test.set_unavailable(false);
    test.pass(20).await;
    let ticks = test.ticks();
    assert!((240..=255).contains(&ticks[0]), "{ticks:?}");
    assert!(ticks.windows(2).all(|two| two[0] + 5 == two[1]), "{ticks:?}");
    assert_eq!(ticks.last(), Some(&320));
}

#[tokio::test(start_paused = true)]
async fn ticks_that_the_clock_jumps_over_are_not_replayed() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "*/5 * * * * *")]);
    test.start();
    test.pass(7).await;
    test.clock.set(test.clock.now() + Duration::from_secs(3_600));
    test.pass(10).await;
    let ticks = test.ticks();
    // The tick that it waited for, those of the last minute, and those since.
    assert_eq!(ticks[..2], [5, 10]);
    assert!(ticks[2..].iter().all(|tick| 3_547 <= *tick), "{ticks:?}");
    assert_eq!(ticks.last(), Some(&3_615));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_repeats_no_tick_and_stops_none() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "*/5 * * * * *")]);
    test.start();
    test.pass(22).await;
    test.clock.set(test.clock.now() - Duration::from_secs(10));
    test.pass(20).await;
    assert_eq!(test.ticks(), [5, 10, 15, 20, 25, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_ends_ticks_no_more() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "5 0 18 22 11 ? 2026")]);
    test.start();
    test.pass(3_600).await;
    assert_eq!(test.ticks(), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_when_asked_and_only_a_timer_does() {
    let test = TimerTest::new();
    let fired =
        fire_timer(&Actor::process(), &test.intake, &timer("a", "0 0 1 1 *")).await.unwrap();
    {
        let kept = test.queue.kept.lock().unwrap();
        assert_eq!((kept[0].event.request_id, &kept[0].event.tick), (fired.request_id, &None));
    }
    let url = hanshu_core::Secret::new("redis://localhost");
    let spec = TriggerSpec::new(RedisTrigger { url, stream: "s".into(), batch: 1 });
    let stream = Trigger { id: trigger_id("r"), spec, enabled: true };
    let error = fire_timer(&Actor::process(), &test.intake, &stream).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "trigger `default/hello/r` is not a timer: only timers can be fired"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_timer_ends_at_once_even_if_its_queue_is_unavailable() {
    let mut test = TimerTest::new();
    test.feed.replace(vec![timer("a", "* * * * * *")]);
    test.start();
    test.set_unavailable(true);
    test.pass(10).await;
    test.stop.intake.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(11), test.tasks.join_next()).await;
    assert!(ended.unwrap().unwrap().is_ok());
    advance(Duration::from_secs(60)).await;
    assert_eq!(test.ticks(), [0; 0]);
}
