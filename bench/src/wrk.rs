//! Closed loops by `wrk`: so many connections, each with one request at a time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::process::Command;

/// Longest wait for one answer.
const TIMEOUT_S: u64 = 20;
/// What wrk may take beyond the seconds it was given.
const GRACE: Duration = Duration::from_secs(30);

/// What to send, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// What wrk saw. Latencies in microseconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Microseconds.
    pub(crate) duration: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Answers above 399.
    pub(crate) status: u64,
    /// Connections that failed, broke or timed out.
    pub(crate) broken: u64,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        as_f64(self.requests) / (self.duration / 1e6)
    }

    /// # Errors
    /// Where an answer was not the function's, or none came.
    pub(crate) fn faultless(self) -> anyhow::Result<Self> {
        ensure!(0 < self.requests, "nothing was answered");
        self.unbroken()
    }

    /// As `faultless`, for a piece so short that slow answers may all come after it.
    ///
    /// # Errors
    /// Where an answer was not the function's.
    pub(crate) fn unbroken(self) -> anyhow::Result<Self> {
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

/// Counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Runs wrk on one thread. `dir` is for its script.
///
/// # Errors
/// Where wrk is missing, fails, or says what cannot be read.
pub(crate) async fn run(
    dir: &Path,
    request: &Request,
    connections: u32,
    seconds: u64,
) -> anyhow::Result<Seen> {
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
    let line = text.lines().find_map(|line| line.strip_prefix("SEEN "));
    let line = line.with_context(|| {
        format!("wrk said nothing of use: {text}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    serde_json::from_str(line).with_context(|| format!("wrk's words: {line}"))
}

fn lua(request: &Request, body: &Path) -> anyhow::Result<String> {
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
    'SEEN {"requests":%d,"duration":%d,"p50":%f,"p99":%f,"status":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"#;
