//! Timers: by the clock, by hand, and once per tick.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::world::{PYTHON, World};

const CODE: &str =
    "def main_handler(event, context):\n    print('tick', event['Time'])\n    return event\n";

fn settings(enabled: bool) -> String {
    format!(
        "{PYTHON}[[functions.clock.triggers]]\ntype = \"timer\"\nname = \"second\"\ncron = \"* * * * * * *\"\nargument = \"hi\"\nenabled = {enabled}\n"
    )
}

fn ticks(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.split("tick ").nth(1)).collect()
}

#[tokio::test]
async fn a_timer_ticks_each_second_once() {
    let world = World::start("process");
    world.deploy("clock", &settings(true), &[("index.py", CODE)]);
    let log = world.log_of("clock", |log| 5 <= ticks(log).len());
    let mut seen = ticks(&log);
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "a tick ran twice: {log}");
    world.ok(&["trigger", "disable", "clock", "second"]);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = ticks(&world.ok(&["logs", "clock", "--since", "1h"])).len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(ticks(&world.ok(&["logs", "clock", "--since", "1h"])).len(), before, "it is off");
}

#[tokio::test]
async fn a_timer_can_be_fired_by_hand() {
    let world = World::start("process");
    world.deploy("clock", &settings(false), &[("index.py", CODE)]);
    let id = world.ok(&["trigger", "fire", "clock"]).trim().to_owned();
    let end = world.end_of(&id).await;
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["result"]["Type"], "Timer");
    assert_eq!(end["result"]["TriggerName"], "second");
    assert_eq!(end["result"]["Message"], "hi");
}

#[tokio::test]
async fn next_ticks_are_told_in_the_timer_s_zone() {
    let world = World::start("process");
    let settings = format!(
        "{PYTHON}[[functions.clock.triggers]]\ntype = \"timer\"\ncron = \"0 30 9 * * MON-FRI *\"\ntimezone = \"Asia/Shanghai\"\n"
    );
    let dir = crate::world::folder("clock", &settings, &[("index.py", CODE)]);
    let out = world.ok(&["deploy", dir.path().to_str().unwrap(), "--output", "json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    let next = out[0]["triggers"][0]["nextTicks"].as_array().unwrap();
    assert_eq!(next.len(), 3, "{out}");
    assert!(
        next.iter().all(|tick| tick["local"].as_str().unwrap().contains("T09:30:00+08:00")),
        "{out}"
    );
}

#[tokio::test]
async fn two_processes_with_timers_queue_each_tick_once() {
    let Some(cluster) = Cluster::start("process") else { return };
    cluster.ready().await;
    let gateway = &cluster.gateway;
    gateway.deploy("clock", &settings(true), &[("index.py", CODE)]);
    let log = gateway.log_of("clock", |log| 10 <= ticks(log).len());
    let mut seen = ticks(&log);
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "a tick was queued twice: {log}");
}
