//! Closed-loop load by `wrk`: several connections, each with one request at a time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// Longest wait for one answer.
const TIMEOUT_S: u64 = 20;
/// How long wrk may take beyond the given seconds.
const GRACE: Duration = Duration::from_secs(30);

/// A POST request to be sent repeatedly.
#[derive(Clone, Debug)]
pub(crate) struct LoadRequest {
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// The result that wrk reports. Latencies in microseconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WrkResult {
    pub(crate) requests: u64,
    /// Of the load, in microseconds.
    pub(crate) duration: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Answers with a status above 399.
    pub(crate) status: u64,
    /// Connections that failed, broke or timed out.
    pub(crate) broken: u64,
}

impl WrkResult {
    pub(crate) fn per_second(&self) -> f64 {
        as_f64(self.requests) / (self.duration / 1e6)
    }

    /// # Errors
    /// If an answer failed, or there was none.
    pub(crate) fn expect_complete(self) -> anyhow::Result<Self> {
        ensure!(0 < self.requests, "nothing was answered");
        self.expect_no_errors()
    }

    /// As `expect_complete`, for a load so short that all answers may come after it.
    ///
    /// # Errors
    /// If an answer failed.
    pub(crate) fn expect_no_errors(self) -> anyhow::Result<Self> {
        ensure!(
            self.status == 0 && self.broken == 0,
            "of {} requests {} were refused or failed and {} broke",
            self.requests,
            self.status,
            self.broken
        );
        Ok(self)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Runs wrk with one thread. `dir` is for its script.
///
/// # Errors
/// If wrk is missing or fails, or its result cannot be read.
pub(crate) async fn run(
    dir: &Path,
    request: &LoadRequest,
    connections: u32,
    seconds: u64,
) -> anyhow::Result<WrkResult> {
    let files = tempfile::tempdir_in(dir)?;
    let body = files.path().join("body");
    std::fs::write(&body, &request.body)?;
    let script = files.path().join("script.lua");
    std::fs::write(&script, lua(request, &body)?)?;
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("--timeout={TIMEOUT_S}s"))
        .arg("-s")
        .arg(&script)
        .arg(&request.url)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = Duration::from_secs(seconds) + GRACE;
    let output = tokio::time::timeout(limit, wrk.output())
        .await
        .context("wrk does not end")?
        .context("cannot run `wrk` (Debian package wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let line = line.with_context(|| {
        format!("wrk printed no result: {text}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    serde_json::from_str(line).with_context(|| format!("the result of wrk: {line}"))
}

fn lua(request: &LoadRequest, body: &Path) -> anyhow::Result<String> {
    let mut script = String::from("wrk.method = \"POST\"\n");
    writeln!(script, "local file = io.open([[{}]], \"rb\")", body.display())?;
    script.push_str("wrk.body = file:read(\"*a\")\nfile:close()\n");
    for (name, value) in &request.headers {
        writeln!(script, "wrk.headers[\"{name}\"] = [[{value}]]")?;
    }
    script.push_str(DONE);
    Ok(script)
}

const DONE: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration":%d,"p50":%f,"p99":%f,"status":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"#;
