//! A separate Docker engine, with images copied from the user's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{PATIENCE, kill_now, log, run, signal, until};

/// The parent control group of all containers of a soak.
pub(crate) fn cgroup(work: &Path) -> String {
    work.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[derive(Debug)]
pub(crate) struct DockerDaemon {
    dir: PathBuf,
    cgroup: String,
    daemon: Option<Child>,
}

impl DockerDaemon {
    /// Starts an engine with its data below `work`.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start(work: &Path) -> anyhow::Result<Self> {
        let dir = work.join("engine");
        std::fs::create_dir_all(&dir)?;
        let mut engine = Self { dir, cgroup: cgroup(work), daemon: None };
        engine.start_again().await?;
        Ok(engine)
    }

    /// Its address, as `docker -H` and hanshu take it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// # Errors
    /// It does not answer.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let log_file = log(&self.dir.join("log"))?;
        // Left by a killed engine; its process id may belong to another process by now.
        let pid_file = self.dir.join("pid");
        let _ = std::fs::remove_file(&pid_file);
        let child = Command::new("dockerd")
            .args(["--bridge", "none", "--cgroup-parent", &format!("/{}", self.cgroup)])
            .args(["--shutdown-timeout", "3", "--host"])
            .arg(self.url())
            .arg("--data-root")
            .arg(self.dir.join("root"))
            .arg("--exec-root")
            .arg(self.dir.join("exec"))
            .arg("--pidfile")
            .arg(pid_file)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .context("dockerd (package docker.io)")?;
        self.daemon = Some(child);
        until("dockerd answers", || async { self.docker(&["version"]).await.is_ok() }).await
    }

    /// Stops it in order: its containers end too.
    ///
    /// # Errors
    /// It did not run, or does not end.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let daemon = self.daemon.as_mut().context("dockerd does not run")?;
        signal(daemon, Signal::SIGTERM)?;
        timeout(PATIENCE, daemon.wait()).await.context("dockerd does not stop")??;
        Ok(())
    }

    /// Kills it: its containers go on until the next engine starts.
    ///
    /// # Errors
    /// It did not run.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        kill_now(self.daemon.as_mut().context("dockerd does not run")?).await
    }

    /// Runs a `docker` command on this engine; returns its standard output.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) async fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        docker(&self.url(), args).await
    }

    /// Loads images from an archive that `docker save` made.
    ///
    /// # Errors
    /// The engine refuses the archive.
    pub(crate) async fn load(&self, archive: &Path) -> anyhow::Result<()> {
        self.docker(&["load", "-q", "-i", &archive.display().to_string()]).await.map(|_| ())
    }
}

/// Runs a `docker` command on the engine at `url`; returns its standard output.
///
/// # Errors
/// As [`run`].
pub(crate) async fn docker(url: &str, args: &[&str]) -> anyhow::Result<String> {
    run("docker", &[&["-H", url][..], args].concat()).await
}

/// Saves the user's engine's images of this repository into an archive.
///
/// # Errors
/// There is no such image, or the engine does not answer.
pub(crate) async fn save(family: &str, archive: &Path) -> anyhow::Result<()> {
    let listed = run("docker", &["images", "-q", family]).await?;
    if listed.trim().is_empty() {
        bail!("the Docker engine has no image {family}");
    }
    let names = ["images", "--format", "{{.Repository}}:{{.Tag}}", family];
    let names = run("docker", &names).await?;
    let archive = archive.display().to_string();
    let mut args = vec!["save", "-o", &archive];
    args.extend(names.lines());
    run("docker", &args).await.map(|_| ())
}
