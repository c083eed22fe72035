//! After the load: waits until all work has ended, stops the servers, and reports what is left.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::sleep;

use crate::cgroups::{command, groups, shims};
use crate::http_client::{ClientConnection, TransferPace, request};
use crate::load::{EventState, ServerUnderTest, poll_state};
use crate::resource_usage::{mounts, process_usage};
use crate::services::run;
use crate::test_function::CLOCK;
use crate::testbed::{ServerSite, Testbed};

/// Longest wait until queues are empty: a claim is held for 30 s, and there is a backlog.
const DRAIN_PATIENCE: Duration = Duration::from_secs(180);
/// Longest wait until counters are zero and idle sandboxes are stopped.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);
/// How long to watch for late runs after the last event ended: a claim's hold and a margin.
pub(crate) const LATE_RUN_WATCH: Duration = Duration::from_secs(33);
const POLL_PAUSE: Duration = Duration::from_millis(250);
/// How many more descriptors a server may have than right after its start: connections to the
/// database and the queue.
const DESCRIPTORS_MORE: u64 = 40;
/// Its output, two connections of its shim and one of its runtime, three files of its cgroup.
const DESCRIPTORS_PER_PREWARMED: u64 = 8;
/// Metrics that are zero while nothing runs.
const ZERO: [&str; 5] = [
    "hanshu_invocations_waiting",
    "hanshu_queue_waiting",
    "hanshu_queue_running",
    "hanshu_sandboxes{",
    "hanshu_async_running",
];

/// Waits for the end of all accepted events and reports those that never ended.
pub(crate) async fn wait_for_events(target: &ServerUnderTest, site: &ServerSite) {
    let report_violation = |text: String| target.report_violation(&text);
    let disabled = site.server.lock().await.hanshu(&["trigger", "disable", CLOCK, "second"]).await;
    if let Err(error) = disabled {
        report_violation(format!("{error:#}"));
    }
    if let Err(left) = drained(target).await {
        report_violation(format!("queues are not empty after {DRAIN_PATIENCE:?}: {left}"));
    }
    let mut connection = ClientConnection::to(&target.access.api);
    for request_id in target.ledger.open_request_ids() {
        match poll_state(target, &mut connection, &request_id).await {
            EventState::Ended => {}
            state => report_violation(format!(
                "the accepted event {request_id}, with empty queues: {state:?}"
            )),
        }
    }
}

/// Waits until the queues are empty; the error is the API's last answer about them.
async fn drained(target: &ServerUnderTest) -> Result<(), String> {
    let until = Instant::now() + DRAIN_PATIENCE;
    loop {
        let answer = get(target, "/v1/queues").await;
        let list: Value = answer
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
            return Err(format!("{answer:?}"));
        }
        sleep(POLL_PAUSE).await;
    }
}

/// Waits until every counter is zero and every sandbox is stopped.
pub(crate) async fn wait_until_idle(target: &ServerUnderTest) {
    let until = Instant::now() + QUIET_PATIENCE;
    loop {
        let answer = get(target, "/metrics").await;
        let left = match &answer {
            Ok(text) => not_zero(text),
            Err(error) => vec![error.to_string()],
        };
        if left.is_empty() {
            return;
        }
        if until < Instant::now() {
            let left = left.join(", ");
            return target.report_violation(&format!("not zero after {QUIET_PATIENCE:?}: {left}"));
        }
        sleep(POLL_PAUSE).await;
    }
}

/// Lines of metrics that should be zero and are not.
fn not_zero(text: &str) -> Vec<String> {
    let of = |name: &&str| text.lines().filter(|line| line.starts_with(*name)).collect::<Vec<_>>();
    if !text.contains("hanshu_sandboxes{") {
        return vec!["there is no hanshu_sandboxes".into()];
    }
    let lines = ZERO.iter().flat_map(of);
    lines.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

async fn get(target: &ServerUnderTest, path: &str) -> anyhow::Result<String> {
    let authorization = target.access.authorization();
    let bytes = request("GET", path, &[("authorization", &authorization)], b"");
    let mut connection = ClientConnection::to(&target.access.api);
    let answered = connection.exchange(&bytes, TransferPace::Quick).await;
    let answer = answered.map_err(|failure| anyhow::anyhow!("{path}: {failure:?}"))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 200, "{path}: {}: {text}", answer.status);
    Ok(text)
}

/// How many prewarmed sandboxes there are: a server keeps them, maybe more than at its start.
fn prewarmed_count(metrics: &str) -> u64 {
    let counts = metrics.lines().filter(|line| line.starts_with("hanshu_prewarmed_sandboxes{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Compares an idle server's descriptors with those that it had right after its start.
pub(crate) async fn check_descriptors(
    target: &ServerUnderTest,
    site: &ServerSite,
    new: u64,
) -> u64 {
    let pid = site.server.lock().await.pid().unwrap_or_default();
    let now = process_usage(pid).descriptors;
    let prewarmed = get(target, "/metrics").await.map_or(0, |text| prewarmed_count(&text));
    if new + DESCRIPTORS_MORE + prewarmed * DESCRIPTORS_PER_PREWARMED < now {
        let links = fs::read_dir(format!("/proc/{pid}/fd"));
        let links = links.into_iter().flatten().flatten();
        let mut open: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
        open.sort();
        target.report_violation(&format!("{now} descriptors, {new} when new: {open:?}"));
    }
    now
}

/// Stops a server and reports what it leaves behind.
///
/// # Errors
/// The server does not stop.
pub(crate) async fn stop_server(
    target: &ServerUnderTest,
    testbed: &Testbed,
    before: &HashSet<String>,
) -> anyhow::Result<()> {
    let site = testbed.sites.get(target.index).context("no such server")?;
    let mut server = site.server.lock().await;
    if let Some(status) = server.ended() {
        target.report_violation(&format!("the server ended by itself: {status}"));
        return Ok(());
    }
    let status = server.stop().await?;
    if !status.success() {
        target.report_violation(&format!("the server's exit status: {status}"));
    }
    let mut left = Vec::new();
    let engine = testbed.engine.lock().await;
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
        target.report_violation(&format!("left over: {each}"));
    }
    Ok(())
}

/// What both servers left behind after they stopped.
pub(crate) async fn leftovers(testbed: &Testbed) -> anyhow::Result<Vec<String>> {
    let engine = testbed.engine.lock().await;
    let containers = engine.docker(&["ps", "-aq"]).await?;
    let mut left: Vec<_> = containers.lines().map(|id| format!("container {id}")).collect();
    for group in groups(&testbed.cgroup) {
        let pids = fs::read_to_string(Path::new(&group).join("cgroup.procs")).unwrap_or_default();
        let commands: Vec<_> = pids.lines().map(command).collect();
        left.push(format!("cgroup {group} {commands:?}"));
    }
    let loops = run("losetup", &["-n", "-O", "BACK-FILE"]).await?;
    let data = testbed.sites.iter().map(|site| site.data.display().to_string());
    for data in data {
        left.extend(loops.lines().filter(|l| l.contains(&data)).map(|l| format!("loop {l}")));
    }
    left.extend(shims().into_iter().map(|(pid, command)| format!("process {pid} {command}")));
    Ok(left)
}

/// Files in the data folder's directories for sandboxes.
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
