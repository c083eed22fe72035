//! Servers and sandboxes that are killed in the middle.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::task::JoinSet;

use crate::recovery::leftovers;
use crate::services::until;
use crate::world::{BACKENDS, NO_PREWARM_CELLS, PATIENCE, PYTHON, World, send, signal};

const SLOW: &str = "import time\ndef main_handler(event, context):\n    time.sleep(event['s'])\n    return event['s']\n";
/// The longest that a call may take whose sandbox was killed: its own time limit is later.
const KILLED_MAX: Duration = Duration::from_secs(15);
/// Frozen sandboxes are another story's: a frozen process dies when it is thawed.
const NEVER_FROZEN: (&str, &str) = ("HANSHU_POOL__FREEZE_AFTER_MS", "0");

/// All processes: id → (parent, name).
fn processes() -> HashMap<u32, (u32, String)> {
    let ids = fs::read_dir("/proc").unwrap();
    let ids = ids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let name = head.split_once(" (")?.1.to_owned();
        Some((id, (tail.split(' ').nth(1)?.parse().ok()?, name)))
    })
    .collect()
}

/// The Python processes of this server's sandboxes, and the process above each.
fn runtimes(world: &World) -> Vec<(u32, u32)> {
    let all = processes();
    let data = world.data.path().canonicalize().unwrap();
    let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/mnt")).ok();
    let host = namespace("self");
    let ours = |id: &u32| {
        // What is mounted into a sandbox of this server comes from its data folder, or is named
        // after it; processes outside of all sandboxes see everything.
        let mounts = fs::read_to_string(format!("/proc/{id}/mountinfo")).unwrap_or_default();
        mounts.contains(data.file_name().unwrap().to_str().unwrap())
            && namespace(&id.to_string()) != host
    };
    all.iter()
        .filter(|(id, (_, name))| {
            name.starts_with("python") && **id != std::process::id() && ours(id)
        })
        .filter(|(_, (parent, _))| *parent != world.pid())
        .map(|(id, (parent, _))| (*id, *parent))
        .collect()
}

/// The control groups whose path holds one of these texts.
fn groups_with(texts: &[String]) -> Vec<String> {
    let found = crate::services::run("find", &["/sys/fs/cgroup", "-type", "d"]);
    let ours = found.lines().filter(|path| texts.iter().any(|text| path.contains(text)));
    ours.map(Into::into).collect()
}

/// The control groups of a process, where they are its own.
fn cgroups_of_pid(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let paths = text.lines().filter_map(|line| line.rsplit(':').next());
    paths.filter(|path| 12 < path.len()).map(Into::into).collect()
}

/// Waits until a sandbox has an event.
pub(crate) async fn until_busy(world: &World) {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = send(world.api(Method::GET, "/metrics")).await;
        let text = String::from_utf8(metrics.body).unwrap();
        if text.contains("hanshu_sandboxes{state=\"busy\"} 1") {
            return;
        }
        assert!(Instant::now() < end, "nothing runs:\n{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_killed_in_the_middle_left_is_removed_and_events_end() {
    for backend in BACKENDS {
        let mut world =
            World::start_with(&["--sandbox", backend], &[NEVER_FROZEN, NO_PREWARM_CELLS]);
        world.deploy("slow", PYTHON, &[("index.py", SLOW)]);
        let mut accepted = Vec::new();
        for _ in 0..2 {
            accepted.push(world.accept("slow", r#"{"s": 1}"#).await);
        }
        let path = "/v1/functions/slow/invocations";
        let mut calls = JoinSet::new();
        calls.spawn(world.api(Method::POST, path).body(r#"{"s": 2}"#).send());
        until("something runs", || !runtimes(&world).is_empty());
        let running = runtimes(&world);
        let groups: Vec<String> =
            running.iter().flat_map(|(pid, _)| cgroups_of_pid(*pid)).collect();
        let mut before = leftovers(&world);
        before.retain(|each| !each.starts_with("mount"));
        world.kill();
        assert!(
            calls.join_next().await.unwrap().unwrap().is_err(),
            "{backend}: its server is gone"
        );
        world.start_server();
        until("what was left is removed", || {
            leftovers(&world).iter().all(|each| !before.contains(each))
        });
        until("its processes are gone", || {
            let now = runtimes(&world);
            running.iter().all(|each| !now.contains(each))
        });
        until("its control groups are gone", || groups_with(&groups).is_empty());
        for id in &accepted {
            assert_eq!(world.end_of(id).await["state"], "succeeded", "{backend}");
        }
        assert_eq!(world.stop(), 0);
        assert_eq!(leftovers(&world), Vec::<String>::new(), "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_that_is_killed_costs_no_call() {
    for backend in BACKENDS {
        let world = World::start_with(&["--sandbox", backend], &[NEVER_FROZEN, NO_PREWARM_CELLS]);
        world.deploy("idle", PYTHON, &[("index.py", SLOW)]);
        // First the function's process, then the shim above it, which is process 1 in there.
        for of_shim in [false, true] {
            assert_eq!(world.invoke("idle", r#"{"s": 0}"#).await.status.as_u16(), 200);
            let victims = runtimes(&world);
            assert_eq!(victims.len(), 1, "{backend}: {victims:?}");
            let (runtime, shim) = victims[0];
            signal(if of_shim { shim } else { runtime }, "KILL");
            until("it is dead", || !runtimes(&world).contains(&victims[0]));
            // The server hears of it at once, but not in no time.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let answer = world.invoke("idle", r#"{"s": 0}"#).await;
            assert_eq!(answer.status.as_u16(), 200, "{backend}, shim {of_shim}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_sandbox_that_is_killed_fails_its_call_at_once_and_no_other() {
    for backend in BACKENDS {
        let world = World::start_with(&["--sandbox", backend], &[NEVER_FROZEN, NO_PREWARM_CELLS]);
        world.deploy("busy", &format!("{PYTHON}timeout_s = 30\n"), &[("index.py", SLOW)]);
        for of_shim in [false, true] {
            assert_eq!(world.invoke("busy", r#"{"s": 0}"#).await.status.as_u16(), 200);
            let victims = runtimes(&world);
            assert_eq!(victims.len(), 1, "{backend}: {victims:?}");
            let (runtime, shim) = victims[0];
            let path = "/v1/functions/busy/invocations";
            let mut calls = JoinSet::new();
            calls.spawn(send(world.api(Method::POST, path).body(r#"{"s": 25}"#)));
            until_busy(&world).await;
            let killed = Instant::now();
            signal(if of_shim { shim } else { runtime }, "KILL");
            let answer = calls.join_next().await.unwrap().unwrap();
            assert!(killed.elapsed() < KILLED_MAX, "{:?}", killed.elapsed());
            assert!(!answer.status.is_success(), "{backend}, shim {of_shim}: {answer:?}");
            let answer = world.invoke("busy", r#"{"s": 0}"#).await;
            assert_eq!(answer.status.as_u16(), 200, "{backend}, shim {of_shim}: {answer:?}");
        }
    }
}

/// With version 1 of control groups a frozen process dies when it is thawed, for its next event.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_sandbox_that_is_killed_costs_one_call_at_most() {
    for backend in BACKENDS {
        let soon = ("HANSHU_POOL__FREEZE_AFTER_MS", "200");
        let world = World::start_with(&["--sandbox", backend], &[soon, NO_PREWARM_CELLS]);
        world.deploy("frozen", &format!("{PYTHON}timeout_s = 30\n"), &[("index.py", SLOW)]);
        assert_eq!(world.invoke("frozen", r#"{"s": 0}"#).await.status.as_u16(), 200);
        let victims = runtimes(&world);
        assert_eq!(victims.len(), 1, "{backend}: {victims:?}");
        let runtime = victims[0].0;
        until("it is frozen", || is_frozen(runtime));
        signal(runtime, "KILL");
        let begun = Instant::now();
        let first = world.invoke("frozen", r#"{"s": 0}"#).await;
        assert!(begun.elapsed() < KILLED_MAX, "{backend}: {first:?}");
        let second = world.invoke("frozen", r#"{"s": 0}"#).await;
        assert_eq!(second.status.as_u16(), 200, "{backend}: {second:?}");
    }
}

/// Whether a process is held by a freezer, of either version.
fn is_frozen(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "freezer" => {
                let state = format!("/sys/fs/cgroup/freezer{path}/freezer.state");
                Some(fs::read_to_string(state).ok()?.trim() == "FROZEN")
            }
            "" => {
                let events = format!("/sys/fs/cgroup{path}/cgroup.events");
                Some(fs::read_to_string(events).ok()?.contains("frozen 1"))
            }
            _ => None,
        }
    });
    found.unwrap_or(false)
}
