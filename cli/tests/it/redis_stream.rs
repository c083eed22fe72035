//! Streams that other programs write: batches, order, poison, consumers that die, an unavailable server.

use serde_json::Value;

use crate::services::{Redis, until};
use crate::world::{PYTHON, World};

/// Prints what came, and fails on `poison`.
const CODE: &str = "
import time
def main_handler(event, context):
    got = [r['Redis']['fields'] for r in event['Records']]
    for fields in got:
        if 'sleep' in fields:
            print('BEGUN', fields['n'], flush=True)
            time.sleep(float(fields['sleep']))
    if any(fields['n'] == 'poison' for fields in got):
        raise RuntimeError('poisoned')
    print('BATCH', ' '.join(fields['n'] for fields in got))
";

fn settings(url: &str, more: &str) -> String {
    format!(
        "{PYTHON}timeout_s = 30\n{more}\n[[functions.reads.triggers]]\ntype = \"redis\"\nurl = \"{url}\"\nstream = \"orders\"\nbatch = 10\n"
    )
}

fn add(redis: &Redis, n: impl std::fmt::Display) {
    redis.ask(&["XADD", "orders", "*", "n", &n.to_string()]);
}

/// Entries that are handed out and not acknowledged; `None` before there is a group.
fn pending(redis: &Redis) -> Option<u64> {
    let groups = redis.ask(&["--json", "XINFO", "GROUPS", "orders"]);
    let groups: Value = serde_json::from_str(&groups).ok()?;
    let group = groups.as_array()?.first()?;
    let lag = group["lag"].as_u64()?;
    (lag == 0).then(|| group["pending"].as_u64())?
}

/// The batches as the function printed them, in order.
fn batches(log: &str) -> Vec<Vec<String>> {
    let lines = log.lines().filter_map(|line| line.split_once("BATCH ").map(|(_, rest)| rest));
    lines.map(|rest| rest.split(' ').map(Into::into).collect()).collect()
}

fn triggers(world: &World) -> Value {
    let list = world.ok(&["trigger", "list", "reads", "--output", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    list["triggers"][0].clone()
}

#[test]
fn entries_come_in_batches_in_order_and_are_acknowledged_after_success() {
    let redis = Redis::start();
    let world = World::start("process");
    for n in 0..35 {
        add(&redis, n);
    }
    world.deploy("reads", &settings(&redis.url(), ""), &[("index.py", CODE)]);
    until("all is acknowledged", || pending(&redis) == Some(0));
    let log = world.log_of("reads", |log| batches(log).concat().len() == 35);
    let all = batches(&log);
    assert!(all.iter().all(|batch| batch.len() <= 10), "{all:?}");
    assert!(all.iter().any(|batch| batch.len() == 10), "{all:?}");
    let expected: Vec<String> = (0..35).map(|n| n.to_string()).collect();
    assert_eq!(all.concat(), expected, "their order is kept");
    let list = world.ok(&["trigger", "list", "reads"]);
    assert!(list.contains("orders at redis://"), "{list}");

    // Not before success: while the function runs, its entries are pending.
    redis.ask(&["XADD", "orders", "*", "n", "late", "sleep", "1.5"]);
    world.log_of("reads", |log| log.contains("BEGUN late"));
    assert_eq!(pending(&redis), Some(1));
    until("it is acknowledged too", || pending(&redis) == Some(0));
}

#[test]
fn a_poison_entry_is_dead_lettered_alone_after_its_attempts() {
    let redis = Redis::start();
    let world = World::start("process");
    for n in ["1", "2", "poison", "3"] {
        add(&redis, n);
    }
    let more = "async = { max_attempts = 2, retry_delay_s = 0 }";
    world.deploy("reads", &settings(&redis.url(), more), &[("index.py", CODE)]);
    until("one is dead_lettered", || redis.ask(&["XLEN", "orders:hanshu-dead"]) == "1");
    until("the others are done", || pending(&redis) == Some(0));
    let dead = redis.ask(&["XRANGE", "orders:hanshu-dead", "-", "+"]);
    for part in ["poison", "hanshu-reason", "poisoned", "hanshu-id"] {
        assert!(dead.contains(part), "{part}: {dead}");
    }
    let log = world.log_of("reads", |log| batches(log).concat().len() == 3);
    assert_eq!(batches(&log).concat(), ["1", "2", "3"], "their order is kept");
    add(&redis, "after");
    world.log_of("reads", |log| batches(log).concat().contains(&"after".to_owned()));
}

#[test]
fn what_a_killed_consumer_held_is_delivered_again() {
    let redis = Redis::start();
    let mut world = World::start("process");
    world.deploy("reads", &settings(&redis.url(), ""), &[("index.py", CODE)]);
    redis.ask(&["XADD", "orders", "*", "n", "held", "sleep", "2"]);
    until("it is handed out", || pending(&redis) == Some(1));
    world.kill();
    add(&redis, "next");
    world.start_server();
    until("all is acknowledged", || pending(&redis) == Some(0));
    let log = world.log_of("reads", |log| batches(log).concat().len() == 2);
    assert_eq!(batches(&log).concat(), ["held", "next"], "their order is kept");
}

#[test]
fn an_unavailable_stream_is_shown_and_read_again() {
    let mut redis = Redis::start();
    let world = World::start("process");
    world.deploy("reads", &settings(&redis.url(), ""), &[("index.py", CODE)]);
    add(&redis, "before");
    world.log_of("reads", |log| batches(log).concat() == ["before"]);
    assert_eq!(triggers(&world)["healthProblem"], Value::Null);
    redis.kill();
    until("its health problem is shown", || triggers(&world)["healthProblem"].is_string());
    let list = world.ok(&["trigger", "list", "reads"]);
    assert!(list.contains("on, but") && list.contains("Redis"), "{list}");
    redis.start_again();
    add(&redis, "after");
    world.log_of("reads", |log| batches(log).concat() == ["before", "after"]);
    until("no health problem is shown", || triggers(&world)["healthProblem"].is_null());
}

#[test]
fn a_stream_that_stands_still_is_shown_and_read_again() {
    let redis = Redis::start();
    let world = World::start("process");
    world.deploy("reads", &settings(&redis.url(), ""), &[("index.py", CODE)]);
    add(&redis, "before");
    world.log_of("reads", |log| batches(log).concat() == ["before"]);
    redis.pause();
    until("its health problem is shown", || triggers(&world)["healthProblem"].is_string());
    redis.resume();
    add(&redis, "after");
    world.log_of("reads", |log| batches(log).concat() == ["before", "after"]);
}
