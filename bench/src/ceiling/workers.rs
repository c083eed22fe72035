//! The front of the ceiling with its workers in containers, from the driver's side.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::ceiling::front::WORKERS_PATH;
use crate::client::Client;
use crate::cpu::Side;
use crate::docker;
use crate::run::{Run, sources};
use crate::wrk::{self, Request};

/// Numbers of workers that are tried where several connections are open.
const TRIED: [u32; 5] = [1, 2, 3, 4, 8];
/// Until all workers must have connected.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Label of the ceiling's containers, with the process id of the run.
pub(crate) const LABEL: &str = "hanshu-bench";

/// What a worker is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Go,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
        }
    }

    /// As in the image's name.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "nodejs",
            Self::Go => "go",
        }
    }

    /// What runs in the container, before the socket's path.
    pub(crate) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["/usr/bin/python3", "-S", "-E", "/bench/worker.py"],
            Self::Node => &["/usr/bin/node", "/bench/worker.js"],
            Self::Go => &["/bench/worker-go"],
        }
    }
}

/// Serves until it is dropped; then its processes and containers are removed.
#[derive(Debug)]
pub(crate) struct Workers {
    front: Child,
    containers: Vec<String>,
    pub(crate) port: u16,
    language: Language,
    _folder: TempDir,
}

impl Workers {
    /// The front, and `count` workers in containers like those of a sandbox of `memory_mb`.
    ///
    /// # Errors
    /// Where the runtime's image is missing, or a worker does not connect.
    pub(crate) async fn start(
        run: &Run,
        language: Language,
        count: u32,
        memory_mb: u32,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("c-").tempdir_in(run.dir())?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(run.dir(), fs::Permissions::from_mode(0o755))?;
        let (front, port) = subcommand(&["front", "--socket", &text(&folder.path().join("s"))?])?;
        let mut workers = Self { front, containers: Vec::new(), port, language, _folder: folder };
        let image = docker::image(language.family())?;
        let code = worker_folder(run, language)?;
        for _ in 0..count {
            let folder = workers._folder.path();
            let id = container(language, &image, (folder, &code), memory_mb)?;
            workers.containers.push(id);
        }
        workers.wait_for(count).await?;
        Ok(workers)
    }

    pub(crate) fn side(&self) -> Side {
        Side { processes: vec![self.front.id()], containers: self.containers.clone() }
    }

    pub(crate) fn request(&self, event: &[u8]) -> Request {
        Request {
            url: format!("http://127.0.0.1:{}/", self.port),
            headers: vec![("content-type", "application/json".into())],
            body: event.to_vec(),
        }
    }

    /// Finds how many workers serve best, and leaves it at that.
    ///
    /// # Errors
    /// Where wrk fails, or an answer does.
    pub(crate) async fn use_best(
        &self,
        run: &Run,
        event: &[u8],
        connections: u32,
    ) -> anyhow::Result<u32> {
        let key = format!("{} {connections} {}", self.language.name(), event.len());
        let known = run.best(&key);
        let mut best = (known.unwrap_or(1), 0.0);
        if known.is_none() && 1 < connections {
            let quick = |count: &u32| !run.measure.quick || matches!(count, 2 | 4);
            for count in TRIED.into_iter().filter(|count| *count <= connections).filter(quick) {
                self.limit(count).await?;
                let request = self.request(event);
                let seen = wrk::run(run.dir(), &request, connections, 1).await?.unbroken()?;
                if best.1 < seen.per_second() {
                    best = (count, seen.per_second());
                }
            }
        }
        run.keep_best(key, best.0);
        self.limit(best.0).await?;
        Ok(best.0)
    }

    /// Most workers that [`Self::use_best`] looks at.
    pub(crate) fn tried_most(run: &Run, connections: u32) -> u32 {
        let most = if run.measure.quick { 4 } else { u32::MAX };
        let connections = connections.min(most);
        TRIED.into_iter().filter(|count| *count <= connections).max().unwrap_or(1)
    }

    async fn limit(&self, count: u32) -> anyhow::Result<u32> {
        let mut client = Client::connect(&format!("127.0.0.1:{}", self.port), "none").await?;
        let path = format!("{WORKERS_PATH}{count}");
        let answer = client.send(Method::POST, &path, &[], Bytes::new()).await?.fine()?;
        Ok(std::str::from_utf8(&answer.body)?.parse()?)
    }

    async fn wait_for(&self, count: u32) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.limit(count).await? < count {
            if CONNECT_WITHIN < begun.elapsed() {
                bail!("not all {count} workers of {} connected", self.language.name());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.front.kill());
        drop(self.front.wait());
        docker::remove(&self.containers.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Starts this program again as something that prints the port it listens at.
pub(crate) fn subcommand(args: &[&str]) -> anyhow::Result<(Child, u16)> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start myself")?;
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let port = line.trim().parse().with_context(|| format!("{args:?} said no port"))?;
    Ok((child, port))
}

/// Where the worker's program is: the Go one is built once per run.
fn worker_folder(run: &Run, language: Language) -> anyhow::Result<std::path::PathBuf> {
    let sources = sources().join("workers");
    if language != Language::Go {
        return Ok(sources);
    }
    let built = run.dir().join("go-worker");
    if !built.join("worker-go").exists() {
        fs::create_dir_all(&built)?;
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755))?;
        let done = Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(built.join("worker-go"))
            .arg(".")
            .current_dir(sources.join("go"))
            .env("CGO_ENABLED", "0")
            .status()
            .context("cannot run `go`")?;
        anyhow::ensure!(done.success(), "the Go worker could not be built");
    }
    Ok(built)
}

/// A container with the limits and walls of a sandbox.
fn container(
    language: Language,
    image: &str,
    (socket, code): (&Path, &Path),
    memory_mb: u32,
) -> anyhow::Result<String> {
    let memory = format!("{memory_mb}m");
    let label = format!("{LABEL}={}", std::process::id());
    let mounts = [format!("{}:/run/bench:ro", text(socket)?), format!("{}:/bench:ro", text(code)?)];
    let fixed = [
        "run",
        "--detach",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--ipc=none",
        "--security-opt=no-new-privileges",
        "--log-driver=none",
        "--pids-limit=1024",
        "--ulimit=nofile=1024:1024",
        "--cpu-shares=1024",
        "--user=65534:65534",
        "--entrypoint=",
    ];
    let mut args = fixed.to_vec();
    args.extend(["--memory", &memory, "--memory-swap", &memory, "--label", &label]);
    args.extend(["--volume", &mounts[0], "--volume", &mounts[1], image]);
    args.extend(language.command());
    args.push("/run/bench/s");
    Ok(docker::docker(&args)?.trim().to_owned())
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("a path that is not text")?.to_owned())
}
