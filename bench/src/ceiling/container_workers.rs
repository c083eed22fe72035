//! Starts the worker proxy and its workers in containers, and chooses how many serve best.

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

use crate::ceiling::worker_proxy::WORKERS_PATH;
use crate::client::BenchClient;
use crate::docker_cli;
use crate::process_stats::MeasuredProcesses;
use crate::run::{BenchRun, crate_dir};
use crate::wrk::{self, LoadRequest};

/// Numbers of workers that are tried if there are several connections.
const TRIED: [u32; 5] = [1, 2, 3, 4, 8];
/// Longest wait until all workers have connected.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Label of the ceiling's containers, with the process id of the run.
pub(crate) const LABEL: &str = "hanshu-bench";

/// The language that a worker's program is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerLanguage {
    Python,
    Node,
    Go,
}

impl WorkerLanguage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
        }
    }

    /// The runtime family, as in the image's name.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "nodejs",
            Self::Go => "go",
        }
    }

    /// The worker's command line, without the socket's path.
    pub(crate) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["/usr/bin/python3", "-S", "-E", "/bench/worker.py"],
            Self::Node => &["/usr/bin/node", "/bench/worker.js"],
            Self::Go => &["/bench/worker-go"],
        }
    }
}

/// When it is dropped, the proxy and the containers are removed.
#[derive(Debug)]
pub(crate) struct ContainerWorkers {
    front: Child,
    containers: Vec<String>,
    pub(crate) port: u16,
    language: WorkerLanguage,
    _folder: TempDir,
}

impl ContainerWorkers {
    /// Starts the proxy, and `count` workers in containers with the limits of a sandbox.
    ///
    /// # Errors
    /// If the runtime's image is missing, or a worker does not connect.
    pub(crate) async fn start(
        run: &BenchRun,
        language: WorkerLanguage,
        count: u32,
        memory_mb: u32,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("c-").tempdir_in(run.dir())?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(run.dir(), fs::Permissions::from_mode(0o755))?;
        let (front, port) = subcommand(&["front", "--socket", &text(&folder.path().join("s"))?])?;
        let mut workers = Self { front, containers: Vec::new(), port, language, _folder: folder };
        let image = docker_cli::image(language.family())?;
        let code = worker_folder(run, language)?;
        for _ in 0..count {
            let mounts = ContainerMounts { socket_dir: workers._folder.path(), code_dir: &code };
            let id = container(language, &image, mounts, memory_mb)?;
            workers.containers.push(id);
        }
        workers.wait_for(count).await?;
        Ok(workers)
    }

    pub(crate) fn side(&self) -> MeasuredProcesses {
        MeasuredProcesses { processes: vec![self.front.id()], containers: self.containers.clone() }
    }

    pub(crate) fn request(&self, event: &[u8]) -> LoadRequest {
        LoadRequest {
            url: format!("http://127.0.0.1:{}/", self.port),
            headers: vec![("content-type", "application/json".into())],
            body: event.to_vec(),
        }
    }

    /// Finds the number of workers that serves best, and sets it.
    ///
    /// # Errors
    /// If wrk or an answer fails.
    pub(crate) async fn choose_worker_count(
        &self,
        run: &BenchRun,
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
                let result =
                    wrk::run(run.dir(), &request, connections, 1).await?.expect_no_errors()?;
                if best.1 < result.per_second() {
                    best = (count, result.per_second());
                }
            }
        }
        run.keep_worker_count(key, best.0);
        self.limit(best.0).await?;
        Ok(best.0)
    }

    /// The largest number of workers that [`Self::choose_worker_count`] tries.
    pub(crate) fn worker_count_max(run: &BenchRun, connections: u32) -> u32 {
        let most = if run.measure.quick { 4 } else { u32::MAX };
        let connections = connections.min(most);
        TRIED.into_iter().filter(|count| *count <= connections).max().unwrap_or(1)
    }

    async fn limit(&self, count: u32) -> anyhow::Result<u32> {
        let mut client = BenchClient::connect(&format!("127.0.0.1:{}", self.port), "none").await?;
        let path = format!("{WORKERS_PATH}{count}");
        let answer = client.send(Method::POST, &path, &[], Bytes::new()).await?.expect_success()?;
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

impl Drop for ContainerWorkers {
    fn drop(&mut self) {
        drop(self.front.kill());
        drop(self.front.wait());
        docker_cli::remove(&self.containers.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Starts this program again as a helper that prints the port it listens on.
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
    let port = line.trim().parse().with_context(|| format!("{args:?} printed no port"))?;
    Ok((child, port))
}

/// The folder of the worker's program. The Go program is built once per run.
fn worker_folder(run: &BenchRun, language: WorkerLanguage) -> anyhow::Result<std::path::PathBuf> {
    let code_dir = crate_dir().join("workers");
    if language != WorkerLanguage::Go {
        return Ok(code_dir);
    }
    let built = run.dir().join("go-worker");
    if !built.join("worker-go").exists() {
        fs::create_dir_all(&built)?;
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755))?;
        let done = Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(built.join("worker-go"))
            .arg(".")
            .current_dir(code_dir.join("go"))
            .env("CGO_ENABLED", "0")
            .status()
            .context("cannot run `go`")?;
        anyhow::ensure!(done.success(), "the Go worker could not be built");
    }
    Ok(built)
}

/// Host folders that a worker's container sees.
#[derive(Clone, Copy, Debug)]
struct ContainerMounts<'a> {
    socket_dir: &'a Path,
    code_dir: &'a Path,
}

/// Starts a container with the limits and the isolation of a sandbox.
fn container(
    language: WorkerLanguage,
    image: &str,
    mounts: ContainerMounts<'_>,
    memory_mb: u32,
) -> anyhow::Result<String> {
    let memory = format!("{memory_mb}m");
    let label = format!("{LABEL}={}", std::process::id());
    let volumes = [
        format!("{}:/run/bench:ro", text(mounts.socket_dir)?),
        format!("{}:/bench:ro", text(mounts.code_dir)?),
    ];
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
    args.extend(["--volume", &volumes[0], "--volume", &volumes[1], image]);
    args.extend(language.command());
    args.push("/run/bench/s");
    Ok(docker_cli::docker(&args)?.trim().to_owned())
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("a path that is not text")?.to_owned())
}
