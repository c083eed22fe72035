//! A Docker engine of our own, with the images that it needs from the user's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{PATIENCE, kill_now, log, run, signal, until};

/// The control group that all containers of one soak are in.
pub(crate) fn cgroup(work: &Path) -> String {
    work.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[derive(Debug)]
pub(crate) struct Engine {
    dir: PathBuf,
    cgroup: String,
    daemon: Option<Child>,
}

impl Engine {
    /// Under the soak's folder.
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

    /// Where it answers, as `docker -H` and hanshu take it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// # Errors
    /// It does not answer.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let said = log(&self.dir.join("log"))?;
        // What a killed one wrote; its number may be somebody else's by now.
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
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("dockerd (package docker.io)")?;
        self.daemon = Some(child);
        until("dockerd answers", || async { self.docker(&["version"]).await.is_ok() }).await
    }

    /// Ends it in order: its containers end too.
    ///
    /// # Errors
    /// It did not run, or does not end.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let daemon = self.daemon.as_mut().context("dockerd does not run")?;
        signal(daemon, Signal::SIGTERM)?;
        timeout(PATIENCE, daemon.wait()).await.context("dockerd does not stop")??;
        Ok(())
    }

    /// Ends it at once: its containers run on until the next one starts.
    ///
    /// # Errors
    /// It did not run.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        kill_now(self.daemon.as_mut().context("dockerd does not run")?).await
    }

    /// A command for this engine; its standard output.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) async fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        docker(&self.url(), args).await
    }

    /// Takes images from an archive that `docker save` made.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) async fn load(&self, archive: &Path) -> anyhow::Result<()> {
        self.docker(&["load", "-q", "-i", &archive.display().to_string()]).await.map(|_| ())
    }
}

/// A command for the engine at `url`; its standard output.
///
/// # Errors
/// As [`run`].
pub(crate) async fn docker(url: &str, args: &[&str]) -> anyhow::Result<String> {
    run("docker", &[&["-H", url][..], args].concat()).await
}

/// Writes the images of this family, which the user's engine has, into an archive.
///
/// # Errors
/// It has none, or does not answer.
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
