//! `hanshu serve` with a data folder of its own, and its command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{PATIENCE, POLL_PAUSE, kill_now, log, signal};
use crate::http_client::basic;

/// How long a server that ends during its start is started again: a service may be down.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct HanshuServerOptions {
    pub(crate) program: PathBuf,
    pub(crate) data: PathBuf,
    /// Its log file, not on the disk that gets full.
    pub(crate) log: PathBuf,
    /// Ports of its API and of its HTTP triggers.
    pub(crate) ports: [u16; 2],
    pub(crate) environment: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct HanshuServer {
    options: HanshuServerOptions,
    process: Option<Child>,
}

/// Addresses and key of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerAccess {
    pub(crate) api: String,
    pub(crate) web: String,
    id: String,
    key: String,
}

impl ServerAccess {
    /// The value of the `authorization` header.
    pub(crate) fn authorization(&self) -> String {
        basic(&self.id, &self.key)
    }
}

impl HanshuServer {
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(options: HanshuServerOptions) -> anyhow::Result<Self> {
        let mut server = Self { options, process: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it, again and again while a service that it needs is down.
    ///
    /// # Errors
    /// It does not come up in 90 s.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_PATIENCE;
        let credentials = self.credentials();
        let _ = std::fs::remove_file(&credentials);
        self.spawn()?;
        while !credentials.exists() {
            if until < Instant::now() {
                bail!("the server does not come up; its log is {}", self.options.log.display());
            }
            sleep(POLL_PAUSE).await;
            if self.process.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                sleep(POLL_PAUSE * 10).await;
                self.spawn()?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log_file = log(&self.options.log)?;
        let [api, web] = self.options.ports.map(|port| format!("127.0.0.1:{port}"));
        let child = Command::new(&self.options.program)
            .args(["serve", "--sandbox", "docker", "--listen", &api, "--http-listen", &web])
            .arg("--data")
            .arg(&self.options.data)
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()?;
        self.process = Some(child);
        Ok(())
    }

    fn credentials(&self) -> PathBuf {
        self.options.data.join("credentials.env")
    }

    /// Its addresses and key.
    ///
    /// # Errors
    /// It is not up.
    pub(crate) fn access(&self) -> anyhow::Result<ServerAccess> {
        let text = std::fs::read_to_string(self.credentials()).context("credentials.env")?;
        let get = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.map(str::to_owned).with_context(|| format!("credentials.env has no {name}"))
        };
        let address = |name: &str| Ok(get(name)?.trim_start_matches("http://").to_owned());
        let (id, key) = (get("HANSHU_SECRET_ID")?, get("HANSHU_SECRET_KEY")?);
        let endpoints = ["HANSHU_ENDPOINT", "HANSHU_HTTP_ENDPOINT"].map(address);
        let [api, web]: [anyhow::Result<String>; 2] = endpoints;
        Ok(ServerAccess { api: api?, web: web?, id, key })
    }

    /// The node's id, which is the label of its containers.
    ///
    /// # Errors
    /// It has none yet.
    pub(crate) fn node(&self) -> anyhow::Result<String> {
        let node = std::fs::read_to_string(self.options.data.join("node")).context("node")?;
        Ok(node.trim().to_owned())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// # Errors
    /// It did not run.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        kill_now(self.process.as_mut().context("the server does not run")?).await
    }

    /// Its exit status, if it ended by itself.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Stops it with SIGTERM; returns its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let process = self.process.as_mut().context("the server does not run")?;
        signal(process, Signal::SIGTERM)?;
        Ok(timeout(PATIENCE, process.wait()).await.context("the server does not stop")??)
    }

    /// Runs a `hanshu` command against this server, which must succeed; returns its output.
    ///
    /// # Errors
    /// It fails.
    pub(crate) async fn hanshu(&self, args: &[&str]) -> anyhow::Result<String> {
        let access = self.access()?;
        let mut command = Command::new(&self.options.program);
        command
            .args(args)
            .env("HANSHU_ENDPOINT", format!("http://{}", access.api))
            .env("HANSHU_SECRET_ID", &access.id)
            .env("HANSHU_SECRET_KEY", &access.key)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(PATIENCE * 5, command.output()).await.context("hanshu hangs")??;
        if !output.status.success() {
            bail!("hanshu {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Makes the user's engine build the image of the runtime, where it has none.
///
/// # Errors
/// A server with this program does not come up, or the deploy fails.
pub(crate) async fn make_image(program: &Path, dir: &Path) -> anyhow::Result<()> {
    let data = dir.join("data");
    std::fs::create_dir_all(&data)?;
    let (log, ports) = (dir.join("log"), [0, 0]);
    let options =
        HanshuServerOptions { program: program.into(), data, log, ports, environment: vec![] };
    let mut server = HanshuServer::start(options).await?;
    let code = dir.join("code");
    crate::test_function::write(&code, 0)?;
    let code = code.display().to_string();
    let deployed =
        server.hanshu(&["deploy", &code, "--function", crate::test_function::SYNC]).await;
    server.stop().await?;
    deployed.map(|_| ())
}
