//! A server under test: the program itself, on a data folder of its own, as its own process.

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

use crate::client::Client;
use crate::cpu::Side;
use crate::docker;
use crate::metrics::Metrics;
use crate::run::Run;
use crate::wrk::Request;

/// Until a server must be ready. The first start on a machine looks at images.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Until a server that was asked to must have stopped.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Between looks at whether it is ready.
const LOOK: Duration = Duration::from_millis(2);

/// Where functions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    Docker,
    Process,
}

/// How a server is set beside its defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) sandbox: Sandbox,
    /// Variables `HANSHU_…`.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Settings {
    pub(crate) fn docker() -> Self {
        Self { sandbox: Sandbox::Docker, variables: Vec::new() }
    }

    pub(crate) fn process() -> Self {
        Self { sandbox: Sandbox::Process, variables: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }
}

/// Runs until it is dropped; then it is stopped, and what it left is removed.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    settings: Settings,
    folder: TempDir,
    child: Child,
    credentials: HashMap<String, String>,
    /// From the start of the process until `/readyz` said yes.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// # Errors
    /// Where it does not become ready; the error holds its log.
    pub(crate) async fn start(run: &Run, settings: Settings) -> anyhow::Result<Self> {
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
    /// Where it does not listen.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address("HANSHU_ENDPOINT")?, &self.authorization()?).await
    }

    /// What wrk sends to call a function by the native API.
    ///
    /// # Errors
    /// Where the server said no address.
    pub(crate) fn call(&self, name: &str, event: &[u8]) -> anyhow::Result<Request> {
        let endpoint = self.credential("HANSHU_ENDPOINT")?;
        Ok(Request {
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
    /// Where the server said none.
    pub(crate) fn http_url(&self) -> anyhow::Result<&str> {
        self.credential("HANSHU_HTTP_ENDPOINT")
    }

    /// Runs the program's own command line against it and gives what it printed.
    ///
    /// # Errors
    /// With its words, where it fails.
    pub(crate) async fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(args).envs(&self.credentials).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "hanshu {}: {words}\n{}", args.join(" "), self.log());
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
    /// Where it does not answer.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        let body = self.client().await?.get("/metrics").await?;
        Ok(Metrics::read(&String::from_utf8_lossy(&body)))
    }

    /// Label of its containers.
    ///
    /// # Errors
    /// Where the data folder names no node.
    pub(crate) fn label(&self) -> anyhow::Result<String> {
        let node = fs::read_to_string(self.data().join("node")).context("the node's identity")?;
        Ok(format!("hanshu={}", node.trim()))
    }

    /// The server and its containers of now.
    ///
    /// # Errors
    /// Where Docker does not say.
    pub(crate) fn side(&self) -> anyhow::Result<Side> {
        let containers = match self.settings.sandbox {
            Sandbox::Docker => docker::labelled(&self.label()?)?,
            Sandbox::Process => Vec::new(),
        };
        Ok(Side { processes: vec![self.pid()], containers })
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

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if self.settings.sandbox == Sandbox::Docker
            && let Ok(label) = self.label()
        {
            docker::remove_labelled(&label);
        }
    }
}

fn spawn(program: &Path, settings: &Settings, folder: &Path) -> anyhow::Result<Child> {
    drop(fs::remove_file(folder.join("data/credentials.env")));
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let sandbox = match settings.sandbox {
        Sandbox::Docker => "docker",
        Sandbox::Process => "process",
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
