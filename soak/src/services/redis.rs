//! A Redis that syncs every write to its append-only file.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::{kill_now, log, run, signal, until};

/// Free, since the network namespace is the soak's own.
const PORT: &str = "6379";

#[derive(Debug)]
pub(crate) struct RedisServer {
    dir: PathBuf,
    server: Option<Child>,
}

impl RedisServer {
    pub(crate) const URL: &'static str = "redis://127.0.0.1:6379";

    /// # Errors
    /// It does not start.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut redis = Self { dir: dir.to_owned(), server: None };
        redis.start_again().await?;
        Ok(redis)
    }

    /// # Errors
    /// It does not answer.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let log_file = log(&self.dir.join("log"))?;
        let child = Command::new("redis-server")
            .args(["--port", PORT, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .context("redis-server (package redis-server)")?;
        self.server = Some(child);
        until("Redis answers", || async {
            run("redis-cli", &["-p", PORT, "ping"])
                .await
                .is_ok_and(|output| output.trim() == "PONG")
        })
        .await
    }

    /// # Errors
    /// It did not run.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        kill_now(self.server.as_mut().context("Redis does not run")?).await
    }

    /// Stops the process with SIGSTOP: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// It did not run.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        signal(self.server.as_ref().context("Redis does not run")?, Signal::SIGSTOP)
    }

    /// # Errors
    /// It did not run.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        signal(self.server.as_ref().context("Redis does not run")?, Signal::SIGCONT)
    }
}
