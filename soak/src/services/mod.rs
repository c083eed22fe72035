//! The servers under test and the services they use, all of which the soak may break: a Docker
//! engine, Redis, PostgreSQL, disks.

mod disk;
mod engine;
mod postgres;
mod redis;
mod server;

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

pub(crate) use disk::LoopDisk;
pub(crate) use engine::{DockerDaemon, cgroup, save};
pub(crate) use postgres::PostgresServer;
pub(crate) use redis::RedisServer;
pub(crate) use server::{HanshuServer, HanshuServerOptions, ServerAccess, make_image};

/// Longest wait for something that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two polls.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// Runs a command, which must succeed; returns its standard output.
///
/// # Errors
/// It cannot be run, fails, or takes longer than a minute.
pub(crate) async fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.with_context(|| format!("{program} {args:?} does not end"))?;
    let output = output.with_context(|| program.to_owned())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {args:?}: {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Polls until a condition holds.
///
/// # Errors
/// It does not hold within a minute.
async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !so().await {
        if end < Instant::now() {
            bail!("it never happens: {what}");
        }
        sleep(POLL_PAUSE).await;
    }
    Ok(())
}

/// Sends a signal to a child that still runs.
fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let id = child.id().context("it has ended")?;
    Ok(kill(Pid::from_raw(i32::try_from(id)?), signal)?)
}

/// Kills a child with -9 and waits for its end.
async fn kill_now(child: &mut Child) -> anyhow::Result<()> {
    child.start_kill()?;
    timeout(PATIENCE, child.wait()).await.context("a killed process does not end")??;
    Ok(())
}

/// Opens a service's log file for appending.
fn log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("{path:?}"))
}
