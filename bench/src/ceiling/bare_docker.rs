//! A container's cold start through Docker's API alone: create, start, first byte.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;

use super::{LABEL, WorkerLanguage};
use crate::docker_cli;
use crate::run::{BenchRun, crate_dir};

/// Longest wait for the first byte.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_BYTES: i64 = 128 << 20;

/// The program in the container, which sends the first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ContainerProgram {
    /// `hanshu-bench-byte`: times Docker alone.
    Byte,
    /// The ceiling's worker: times Docker and the interpreter's start.
    Worker(WorkerLanguage),
}

/// The engine, the image and the program.
#[derive(Debug)]
pub(crate) struct BareDocker {
    engine: Docker,
    image: String,
    /// The path of `hanshu-bench-byte`, beside this program.
    byte: PathBuf,
}

impl BareDocker {
    /// For containers of the image that functions of this language use.
    ///
    /// # Errors
    /// If the engine does not answer, or there is no such image.
    pub(crate) fn new(language: WorkerLanguage) -> anyhow::Result<Self> {
        Ok(Self {
            engine: Docker::connect_with_unix_defaults()?,
            image: docker_cli::image(language.family())?,
            byte: std::env::current_exe()?.with_file_name("hanshu-bench-byte"),
        })
    }

    /// Starts a container and waits for its first byte.
    ///
    /// # Errors
    /// If the engine refuses, or no byte comes.
    pub(crate) async fn start(
        &self,
        run: &BenchRun,
        program: ContainerProgram,
    ) -> anyhow::Result<BareContainer<'_>> {
        let folder = tempfile::Builder::new().prefix("d-").tempdir_in(run.dir())?;
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(folder.path(), 0o755)?;
        open(run.dir(), 0o755)?;
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket)?;
        open(&socket, 0o777)?;
        let body = self.container(folder.path(), program)?;
        let begun = Instant::now();
        let options = None::<CreateContainerOptions>;
        let id = self.engine.create_container(options, body).await?.id;
        let mut started = BareContainer { docker: self, id, took: Duration::ZERO, _folder: folder };
        self.engine.start_container(&started.id, None::<StartContainerOptions>).await?;
        let first = async {
            let (mut line, _) = listener.accept().await?;
            line.read_u8().await
        };
        tokio::time::timeout(PATIENCE, first).await.context("no first byte")??;
        started.took = begun.elapsed();
        Ok(started)
    }

    fn container(
        &self,
        folder: &Path,
        program: ContainerProgram,
    ) -> anyhow::Result<ContainerCreateBody> {
        let workers = crate_dir().join("workers");
        let mut binds = vec![
            format!("{}:/run/bench:ro", folder.display()),
            format!("{}:/bench:ro", workers.display()),
        ];
        let mut command: Vec<String> = match program {
            ContainerProgram::Byte => {
                binds.push(format!("{}:/byte:ro", self.byte.display()));
                vec!["/byte".into()]
            }
            ContainerProgram::Worker(language) => {
                language.command().iter().map(|&word| word.to_owned()).collect()
            }
        };
        command.push("/run/bench/s".into());
        let host = HostConfig {
            network_mode: Some("bridge".into()),
            binds: Some(binds),
            memory: Some(MEMORY_BYTES),
            memory_swap: Some(MEMORY_BYTES),
            cpu_shares: Some(1024),
            pids_limit: Some(1024),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges:true".into()]),
            ipc_mode: Some("none".into()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..Default::default()
        };
        let label = (LABEL.to_owned(), std::process::id().to_string());
        Ok(ContainerCreateBody {
            image: Some(self.image.clone()),
            user: Some("65534:65534".into()),
            entrypoint: Some(command),
            labels: Some([label].into()),
            host_config: Some(host),
            ..Default::default()
        })
    }
}

/// A running container. If `remove` is never reached, it is removed after the row by its label.
#[derive(Debug)]
pub(crate) struct BareContainer<'a> {
    docker: &'a BareDocker,
    id: String,
    pub(crate) took: Duration,
    _folder: TempDir,
}

impl BareContainer<'_> {
    /// # Errors
    /// If the engine refuses.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        Ok(self.docker.engine.remove_container(&self.id, Some(options)).await?)
    }
}
