//! Load at a fixed rate by `oha`. Latencies are corrected for coordinated omission: each counts from
//! when the request was due.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rusqlite::Connection;
use tokio::process::Command;

use crate::wrk::LoadRequest;

const GRACE: Duration = Duration::from_secs(30);

/// One request's result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OhaSample {
    pub(crate) status: u16,
    /// Seconds from when the request was due.
    pub(crate) took_s: f64,
}

/// How many requests are sent, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfferedLoad {
    /// Requests per second.
    pub(crate) rate: u32,
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
}

/// Sends requests at a fixed rate.
///
/// # Errors
/// If oha is missing or fails, or its record cannot be read.
pub(crate) async fn run(
    dir: &Path,
    request: &LoadRequest,
    load: OfferedLoad,
) -> anyhow::Result<Vec<OhaSample>> {
    let OfferedLoad { rate, connections, seconds } = load;
    let files = tempfile::tempdir_in(dir)?;
    let (body, record) = (files.path().join("body"), files.path().join("record.db"));
    std::fs::write(&body, &request.body)?;
    let mut oha = Command::new("oha");
    oha.args(["--no-tui", "--output-format", "quiet", "--latency-correction", "-m", "POST"])
        .args(["-q", &rate.to_string(), "-c", &connections.to_string()])
        .args(["-z", &format!("{seconds}s")])
        .arg("-D")
        .arg(&body)
        .arg("--db-url")
        .arg(&record);
    for (name, value) in &request.headers {
        oha.args(["-H", &format!("{name}: {value}")]);
    }
    oha.arg(&request.url).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(seconds) + GRACE, oha.output())
        .await
        .context("oha does not end")?
        .context("cannot run `oha` (cargo install oha)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "oha failed: {stderr}");
    read(&record)
}

fn read(record: &Path) -> anyhow::Result<Vec<OhaSample>> {
    let record = Connection::open(record)?;
    let mut rows = record.prepare("SELECT status, duration FROM oha")?;
    let rows =
        rows.query_map((), |row| Ok(OhaSample { status: row.get(0)?, took_s: row.get(1)? }))?;
    rows.map(|row| row.map_err(anyhow::Error::from)).collect()
}
