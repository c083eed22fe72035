//! A PostgreSQL with an empty database.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;
use tokio::time::timeout;

use super::{PATIENCE, log, run};

/// Without fsync: only its processes are killed, never the machine.
const OPTIONS: &str = "-p 5432 -c listen_addresses=127.0.0.1 -c unix_socket_directories='' \
                       -c fsync=off -c max_connections=200";

#[derive(Debug)]
pub(crate) struct PostgresServer {
    dir: PathBuf,
    tools: PathBuf,
}

impl PostgresServer {
    pub(crate) const URL: &'static str = "postgres://postgres@127.0.0.1:5432/postgres";

    /// # Errors
    /// It is not installed, or does not start.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql");
        let mut tools: Vec<PathBuf> = versions
            .context("PostgreSQL (package postgresql)")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|path| path.join("initdb").is_file())
            .collect();
        tools.sort();
        let tools = tools.pop().context("PostgreSQL (package postgresql)")?;
        std::fs::create_dir_all(dir)?;
        let postgres = Self { dir: dir.to_owned(), tools };
        run("chown", &["postgres", &postgres.dir.display().to_string()]).await?;
        postgres.tool("initdb", &["-A", "trust", "-U", "postgres", "-N"]).await?;
        postgres.start_again().await?;
        Ok(postgres)
    }

    /// # Errors
    /// It does not start.
    pub(crate) async fn start_again(&self) -> anyhow::Result<()> {
        let log = self.dir.join("log").display().to_string();
        self.tool("pg_ctl", &["start", "-w", "-l", &log, "-o", OPTIONS]).await
    }

    /// Stops it at once, without a checkpoint.
    ///
    /// # Errors
    /// It did not run.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.tool("pg_ctl", &["stop", "-w", "-m", "immediate"]).await
    }

    /// Runs one of PostgreSQL's programs, which refuse to run as root.
    async fn tool(&self, name: &str, args: &[&str]) -> anyhow::Result<()> {
        // To a file and not a pipe: the server that it starts keeps it open.
        let output_path = self.dir.join(format!("{name}.out"));
        let output = log(&output_path)?;
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.tools.join(name)).args(args);
        command.arg("-D").arg(self.dir.join("data")).current_dir("/");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let status = timeout(PATIENCE, command.status()).await;
        let status = status.with_context(|| format!("{name} does not end"))??;
        if !status.success() {
            let output = std::fs::read_to_string(output_path).unwrap_or_default();
            bail!("{name} {args:?}: {status}: {output}");
        }
        Ok(())
    }
}
