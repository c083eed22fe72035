//! After the load: waits until everything has ended, and looks for what is left over.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::sleep;

use crate::field::{Field, Site};
use crate::functions::CLOCK;
use crate::groups::{command, groups, shims};
use crate::http::{Line, Pace, request};
use crate::load::{Said, World, ask_state};
use crate::plan::name;
use crate::samples::{mounts, of_process};
use crate::services::run;

/// Longest wait until queues are empty: a hold has 30 s, and several servers' worth of work.
const DRAIN_PATIENCE: Duration = Duration::from_secs(180);
/// Longest wait until counters are zero and idle sandboxes are given up.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);
/// Nothing may run again in this time after the last state said ended: a hold and a bit.
pub(crate) const GHOST_WATCH: Duration = Duration::from_secs(33);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Descriptors that a server may hold more than right after its start: the database's and the
/// queue's connections.
const DESCRIPTORS_MORE: u64 = 40;
/// Its output, two connections of its shim and one of its runtime, and three files of its group.
const DESCRIPTORS_OF_A_PREWARM_CELL: u64 = 8;
/// Metrics that are zero when nothing goes on.
const ZERO: [&str; 5] = [
    "hanshu_invocations_waiting",
    "hanshu_queue_waiting",
    "hanshu_queue_running",
    "hanshu_sandboxes{",
    "hanshu_async_running",
];

/// Waits for the end of all that was accepted, and of what served it.
pub(crate) async fn settle(world: &World, site: &Site) {
    let wrong = |text: String| world.chronicle.wrong(format!("{}: {text}", name(world.index)));
    let disabled = site.server.lock().await.hanshu(&["trigger", "disable", CLOCK, "second"]).await;
    if let Err(error) = disabled {
        wrong(format!("{error:#}"));
    }
    if let Err(left) = drained(world).await {
        wrong(format!("queues are not empty after {DRAIN_PATIENCE:?}: {left}"));
    }
    let mut line = Line::to(&world.access.api);
    for request_id in world.ledger.open() {
        match ask_state(world, &mut line, &request_id).await {
            Said::Ended => {}
            said => wrong(format!("the accepted event {request_id}, with empty queues: {said:?}")),
        }
    }
}

/// Waits until the queues are empty; else what they hold.
async fn drained(world: &World) -> Result<(), String> {
    let until = Instant::now() + DRAIN_PATIENCE;
    loop {
        let said = get(world, "/v1/queues").await;
        let list: Value = said
            .as_ref()
            .map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_default());
        let number = |queue: &Value, what: &str| queue[what].as_u64().unwrap_or(1);
        let empty = list["queues"].as_array().is_some_and(|queues| {
            queues.iter().all(|queue| number(queue, "waiting") + number(queue, "running") == 0)
        });
        if empty {
            return Ok(());
        }
        if until < Instant::now() {
            return Err(format!("{said:?}"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until every counter is zero and every sandbox is gone.
pub(crate) async fn quiet(world: &World) {
    let until = Instant::now() + QUIET_PATIENCE;
    loop {
        let said = get(world, "/metrics").await;
        let left = match &said {
            Ok(text) => not_zero(text),
            Err(error) => vec![error.to_string()],
        };
        if left.is_empty() {
            return;
        }
        if until < Instant::now() {
            let left = left.join(", ");
            let text = format!("{}: not zero after {QUIET_PATIENCE:?}: {left}", name(world.index));
            return world.chronicle.wrong(text);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The lines of metrics that should be zero and are not; or that none is there at all.
fn not_zero(text: &str) -> Vec<String> {
    let of = |name: &&str| text.lines().filter(|line| line.starts_with(*name)).collect::<Vec<_>>();
    if !text.contains("hanshu_sandboxes{") {
        return vec!["there is no hanshu_sandboxes".into()];
    }
    let lines = ZERO.iter().flat_map(of);
    lines.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

async fn get(world: &World, path: &str) -> anyhow::Result<String> {
    let authorization = world.access.authorization();
    let bytes = request("GET", path, &[("authorization", &authorization)], b"");
    let mut line = Line::to(&world.access.api);
    let answered = line.exchange(&bytes, Pace::Quick).await;
    let answer = answered.map_err(|trouble| anyhow::anyhow!("{path}: {trouble:?}"))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 200, "{path}: {}: {text}", answer.status);
    Ok(text)
}

/// How many prewarmed sandboxes lie ready: the server keeps them, and may have more of them than at first.
fn prewarming(metrics: &str) -> u64 {
    let counts = metrics.lines().filter(|line| line.starts_with("hanshu_prewarmed_sandbox{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Descriptors of an idle server, against those that it had when it was new.
pub(crate) async fn descriptors(world: &World, site: &Site, new: u64) -> u64 {
    let pid = site.server.lock().await.pid().unwrap_or_default();
    let now = of_process(pid).descriptors;
    let prewarming = get(world, "/metrics").await.map_or(0, |text| prewarming(&text));
    if new + DESCRIPTORS_MORE + prewarming * DESCRIPTORS_OF_A_PREWARM_CELL < now {
        let links = fs::read_dir(format!("/proc/{pid}/fd"));
        let links = links.into_iter().flatten().flatten();
        let mut open: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
        open.sort();
        let name = name(world.index);
        world.chronicle.wrong(format!("{name}: {now} descriptors, {new} when new: {open:?}"));
    }
    now
}

/// Stops a server, and looks for what it leaves.
///
/// # Errors
/// It does not stop.
pub(crate) async fn stop(
    world: &World,
    field: &Field,
    before: &HashSet<String>,
) -> anyhow::Result<()> {
    let site = field.sites.get(world.index).context("no such server")?;
    let name = name(world.index);
    let mut server = site.server.lock().await;
    if let Some(status) = server.ended() {
        world.chronicle.wrong(format!("{name}: the server ended by itself: {status}"));
        return Ok(());
    }
    let status = server.stop().await?;
    if !status.success() {
        world.chronicle.wrong(format!("{name}: the server's stop: {status}"));
    }
    let mut left = Vec::new();
    let engine = field.engine.lock().await;
    let filter = format!("label=hanshu={}", site.node);
    let containers = engine.docker(&["ps", "-aq", "--filter", &filter]).await?;
    left.extend(containers.lines().map(|id| format!("container {id}")));
    let networks = engine.docker(&["network", "ls", "--format", "{{.Name}}"]).await?;
    let networks = networks.lines().filter(|network| network.contains(&site.node));
    left.extend(networks.map(|network| format!("network {network}")));
    let rules = run("iptables", &["-S"]).await?;
    let rules = rules.lines().filter(|rule| rule.contains(&site.node));
    left.extend(rules.map(|rule| format!("rule {rule}")));
    let data = site.data.display().to_string();
    let mounted = mounts().into_iter().filter(|line| line.contains(&data));
    left.extend(mounted.map(|line| format!("mount {line}")));
    left.extend(files(&site.data).into_iter().filter(|file| !before.contains(file)));
    for each in left {
        world.chronicle.wrong(format!("{name} left over: {each}"));
    }
    Ok(())
}

/// What is left of both servers together, when both have stopped.
pub(crate) async fn leftovers(field: &Field) -> anyhow::Result<Vec<String>> {
    let engine = field.engine.lock().await;
    let containers = engine.docker(&["ps", "-aq"]).await?;
    let mut left: Vec<_> = containers.lines().map(|id| format!("container {id}")).collect();
    for group in groups(&field.cgroup) {
        let pids = fs::read_to_string(Path::new(&group).join("cgroup.procs")).unwrap_or_default();
        let commands: Vec<_> = pids.lines().map(command).collect();
        left.push(format!("cgroup {group} {commands:?}"));
    }
    let loops = run("losetup", &["-n", "-O", "BACK-FILE"]).await?;
    let data = field.sites.iter().map(|site| site.data.display().to_string());
    for data in data {
        left.extend(loops.lines().filter(|l| l.contains(&data)).map(|l| format!("loop {l}")));
    }
    left.extend(shims().into_iter().map(|(pid, command)| format!("process {pid} {command}")));
    Ok(left)
}

/// Sockets, and what lies in the folders for sandboxes.
pub(crate) fn files(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["run", "docker", "process"] {
        let Ok(entries) = fs::read_dir(data.join(folder)) else { continue };
        found.extend(entries.flatten().map(|entry| format!("file {}", entry.path().display())));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zeroes_are_quiet() {
        let text = "hanshu_sandboxes{state=\"busy\"} 1\nhanshu_sandboxes{state=\"idle\"} 0\n\
                    hanshu_queue_running 0\nhanshu_gateway_requests_total 7\n";
        assert_eq!(not_zero(text), ["hanshu_sandboxes{state=\"busy\"} 1"]);
        assert_eq!(not_zero("").len(), 1);
    }
}
