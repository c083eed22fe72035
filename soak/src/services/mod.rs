//! What the servers stand on, ours to break: a Docker engine, Redis, PostgreSQL, disks; and the
//! servers themselves.

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

pub(crate) use disk::Disk;
pub(crate) use engine::{Engine, cgroup, save};
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
pub(crate) use server::{Access, Server, ServerOptions, make_image};

/// Longest wait for something that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a command, which must succeed; its standard output.
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
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {args:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until something is so.
///
/// # Errors
/// It is not so after a minute.
async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !so().await {
        if end < Instant::now() {
            bail!("it never happens: {what}");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Sends a signal to a child that still runs.
fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let id = child.id().context("it has ended")?;
    Ok(kill(Pid::from_raw(i32::try_from(id)?), signal)?)
}

/// Kills it with -9 and waits for its end.
async fn kill_now(child: &mut Child) -> anyhow::Result<()> {
    child.start_kill()?;
    timeout(PATIENCE, child.wait()).await.context("a killed process does not end")??;
    Ok(())
}

/// A file for what a service says, appended to.
fn log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("{path:?}"))
}
