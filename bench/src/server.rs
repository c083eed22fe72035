//! A server under test: the program as a process of its own, with a data folder of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::BenchClient;
use crate::docker_cli;
use crate::process_stats::MeasuredProcesses;
use crate::run::BenchRun;
use crate::server_metrics::ServerMetrics;
use crate::wrk::LoadRequest;

/// Longest start; the first on a machine checks images.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest stop after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two checks whether it is ready.
const LOOK: Duration = Duration::from_millis(2);

/// The kind of sandbox that the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BenchSandbox {
    Docker,
    Process,
}

/// How a server differs from the defaults.
#[derive(Clone, Debug)]
pub(crate) struct BenchServerSettings {
    pub(crate) sandbox: BenchSandbox,
    /// Environment variables `HANSHU_…`.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl BenchServerSettings {
    pub(crate) fn docker() -> Self {
        Self { sandbox: BenchSandbox::Docker, variables: Vec::new() }
    }

    pub(crate) fn process() -> Self {
        Self { sandbox: BenchSandbox::Process, variables: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }
}

/// Stopped when it is dropped; what it left is removed.
#[derive(Debug)]
pub(crate) struct BenchServer {
    program: PathBuf,
    settings: BenchServerSettings,
    folder: TempDir,
    child: Child,
    credentials: HashMap<String, String>,
    /// From the start of the process until `/readyz` answered 200.
    pub(crate) ready_after: Duration,
}

impl BenchServer {
    /// # Errors
    /// If it does not become ready; the error holds its log.
    pub(crate) async fn start(
        run: &BenchRun,
        settings: BenchServerSettings,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("server-").tempdir_in(run.dir())?;
        fs::create_dir(folder.path().join("data"))?;
        let child = spawn(&run.program, &settings, folder.path())?;
        let mut server = Self {
            program: run.program.clone(),
            settings,
            folder,
            child,
            credentials: HashMap::new(),
            ready_after: Duration::ZERO,
        };
        server.wait_until_ready(Instant::now()).await?;
        Ok(server)
    }

    /// Stops it and starts it again on the same data folder.
    ///
    /// # Errors
    /// As of `start`.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let begun = Instant::now();
        self.child = spawn(&self.program, &self.settings, self.folder.path())?;
        self.wait_until_ready(begun).await
    }

    async fn wait_until_ready(&mut self, begun: Instant) -> anyhow::Result<()> {
        while begun.elapsed() < READY_WITHIN {
            if self.is_ready().await {
                self.ready_after = begun.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at its start with {status}:\n{}", self.log());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the server is not ready within {READY_WITHIN:?}:\n{}", self.log())
    }

    async fn is_ready(&mut self) -> bool {
        let Ok(text) = fs::read_to_string(self.data().join("credentials.env")) else {
            return false;
        };
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        self.credentials = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        let Ok(mut client) = self.client().await else { return false };
        client.get("/readyz").await.is_ok()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn credential(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.credentials.get(name);
        Ok(value.with_context(|| format!("credentials.env has no {name}"))?)
    }

    fn authorization(&self) -> anyhow::Result<String> {
        let (id, key) = ("HANSHU_SECRET_ID", "HANSHU_SECRET_KEY");
        let pair = format!("{}:{}", self.credential(id)?, self.credential(key)?);
        Ok(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    fn address(&self, name: &str) -> anyhow::Result<&str> {
        Ok(self.credential(name)?.trim_start_matches("http://"))
    }

    /// # Errors
    /// If it does not accept connections.
    pub(crate) async fn client(&self) -> anyhow::Result<BenchClient> {
        BenchClient::connect(self.address("HANSHU_ENDPOINT")?, &self.authorization()?).await
    }

    /// The request that invokes a function through the native API.
    ///
    /// # Errors
    /// If the server wrote no credentials.
    pub(crate) fn call(&self, name: &str, event: &[u8]) -> anyhow::Result<LoadRequest> {
        let endpoint = self.credential("HANSHU_ENDPOINT")?;
        Ok(LoadRequest {
            url: format!("{endpoint}/v1/functions/{name}/invocations"),
            headers: vec![
                ("authorization", self.authorization()?),
                ("content-type", "application/json".into()),
            ],
            body: event.to_vec(),
        })
    }

    /// The address of HTTP triggers.
    ///
    /// # Errors
    /// If the server wrote no credentials.
    pub(crate) fn http_url(&self) -> anyhow::Result<&str> {
        self.credential("HANSHU_HTTP_ENDPOINT")
    }

    /// Runs a command of the program's command line against it; returns its output.
    ///
    /// # Errors
    /// If it fails; the error holds its output.
    pub(crate) async fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(args).envs(&self.credentials).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "hanshu {}: {stderr}\n{}", args.join(" "), self.log());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Deploys a folder of functions.
    ///
    /// # Errors
    /// As of `command`.
    pub(crate) async fn deploy(&self, folder: &Path) -> anyhow::Result<String> {
        let folder = folder.to_str().context("a folder's name that is not text")?;
        self.command(&["deploy", folder, "--output", "json"]).await
    }

    /// # Errors
    /// If it does not answer.
    pub(crate) async fn metrics(&self) -> anyhow::Result<ServerMetrics> {
        let body = self.client().await?.get("/metrics").await?;
        Ok(ServerMetrics::read(&String::from_utf8_lossy(&body)))
    }

    /// The label of its containers.
    ///
    /// # Errors
    /// If there is no node file in the data folder.
    pub(crate) fn label(&self) -> anyhow::Result<String> {
        let node = fs::read_to_string(self.data().join("node")).context("the node's identity")?;
        Ok(format!("hanshu={}", node.trim()))
    }

    /// The server's process and its containers of this moment.
    ///
    /// # Errors
    /// If `docker` fails.
    pub(crate) fn side(&self) -> anyhow::Result<MeasuredProcesses> {
        let containers = match self.settings.sandbox {
            BenchSandbox::Docker => docker_cli::labelled(&self.label()?)?,
            BenchSandbox::Process => Vec::new(),
        };
        Ok(MeasuredProcesses { processes: vec![self.pid()], containers })
    }

    fn stop(&mut self) {
        let asked =
            i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < STOP_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        self.stop();
        if self.settings.sandbox == BenchSandbox::Docker
            && let Ok(label) = self.label()
        {
            docker_cli::remove_labelled(&label);
        }
    }
}

fn spawn(program: &Path, settings: &BenchServerSettings, folder: &Path) -> anyhow::Result<Child> {
    drop(fs::remove_file(folder.join("data/credentials.env")));
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let sandbox = match settings.sandbox {
        BenchSandbox::Docker => "docker",
        BenchSandbox::Process => "process",
    };
    let mut command = Command::new(program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .args(["--sandbox", sandbox, "--data"])
        .arg(folder.join("data"))
        .envs(settings.variables.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}
