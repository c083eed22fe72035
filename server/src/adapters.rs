//! Chooses the adapter behind each port from the configuration. Only this file does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{
    EndedEvents, EventQueue, FunctionRegistry, ImageBuilder, InvocationHistory, InvocationJournal,
    NodeRegistry, QueueError,
};
use hanshu_core::{Clock, ErrorKind, NodeId};
use hanshu_invoker::{
    DockerBackend, DockerOptions, HostPrograms, InvokerOptions, ProcessBackend, ProcessOptions,
    SandboxBackend, StartError,
};
use hanshu_store::{
    Dialect, FolderPackages, JournalWriter, RedisOptions, RedisQueue, SegmentJournal,
    SegmentOptions, SqlDatabase, SqlDatabaseOptions, SqlEndedEvents, SqlHistory, SqlJournal,
    SqlJournalOptions, SqlNodes, SqlQueue, SqlRegistry, UnpackLimits,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::{Config, Roles, SandboxChoice};
use crate::error::Error;

/// How long a start waits for a database or Redis that does not answer yet.
const SERVICE_START_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Redis expires an ended event this long after retention should have removed it.
const REDIS_EXPIRY_MARGIN: Duration = Duration::from_secs(3_600);
const MIB: u64 = 1024 * 1024;

/// The adapters that store something.
pub(crate) struct StorageAdapters {
    pub(crate) registry: Arc<dyn FunctionRegistry>,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) ended: Arc<dyn EndedEvents>,
    pub(crate) history: Arc<dyn InvocationHistory>,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) nodes: Arc<dyn NodeRegistry>,
    pub(crate) packages: Arc<FolderPackages>,
    db: SqlDatabase,
    writing: CancellationToken,
    tasks: TaskTracker,
}

/// The adapters that run sandboxes and build their images.
pub(crate) struct SandboxAdapters {
    pub(crate) backend: Arc<dyn SandboxBackend>,
    pub(crate) images: Arc<dyn ImageBuilder>,
}

/// The queue, and the stream of what ends in it.
struct OpenQueue {
    queue: Arc<dyn EventQueue>,
    ended: SqlEndedEvents,
}

impl StorageAdapters {
    /// Opens the stores that the configuration names.
    pub(crate) async fn open(
        config: &Config,
        folder: &Path,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let tasks = TaskTracker::new();
        let db = open_database(config, folder).await?;
        let OpenQueue { queue, ended } = open_queue(config, &db, clock, &tasks).await?;
        let (journal, writer) = open_journal(config, folder, &db)?;
        let writing = CancellationToken::new();
        tasks.spawn(writer.run(writing.clone()));
        let packages =
            FolderPackages::open(&folder.join("packages"), UnpackLimits::default(), clock.clone())
                .map_err(|error| Error::Store(error.to_string()))?;
        Ok(Self {
            registry: Arc::new(SqlRegistry::new(db.clone())),
            queue,
            ended: Arc::new(ended),
            history: Arc::new(SqlHistory::new(db.clone())),
            journal,
            nodes: Arc::new(SqlNodes::new(db.clone())),
            packages: Arc::new(packages),
            db,
            writing,
            tasks,
        })
    }

    /// Writes buffered records, then closes. Nothing may use the stores any more.
    pub(crate) async fn close(self, patience: Duration) {
        self.writing.cancel();
        self.queue.close();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            warn!("Some records and log lines could not be written in time");
        }
        if tokio::time::timeout(patience, self.db.close()).await.is_err() {
            warn!("The database could not be closed in time");
        }
    }
}

async fn open_database(config: &Config, folder: &Path) -> Result<SqlDatabase, Error> {
    let options = SqlDatabaseOptions::default();
    let to_error = |error: &dyn std::fmt::Display| Error::Store(format!("the database: {error}"));
    let Some(url) = &config.database else {
        let file = folder.join("hanshu.db");
        return SqlDatabase::open_file(&file, &options).await.map_err(|error| to_error(&error));
    };
    let until = Instant::now() + SERVICE_START_TIMEOUT;
    loop {
        match SqlDatabase::open_with(url.expose(), &options).await {
            Ok(db) => return Ok(db),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < until => {
                warn!(%error, "The database does not answer yet");
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(to_error(&error)),
        }
    }
}

async fn open_queue(
    config: &Config,
    db: &SqlDatabase,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
) -> Result<OpenQueue, Error> {
    let Some(url) = &config.queue else {
        let queue = SqlQueue::start(db.clone(), clock.clone(), tasks);
        // A SQLite file has one process: whatever is claimed was claimed by an earlier one.
        if db.dialect() == Dialect::Sqlite {
            let released = queue.release_all().await;
            let held = released.map_err(|error| Error::Store(format!("the queue: {error}")))?;
            if 0 < held {
                info!(held, "Events that an earlier process was running are due again");
            }
        }
        let ended = SqlEndedEvents::new(db.clone());
        return Ok(OpenQueue { queue: Arc::new(queue), ended });
    };
    if !["redis://", "redis+unix://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        let url = redact_url(url.expose());
        return Err(Error::Config(format!(
            "`queue` is `{url}`: expected `redis://host:port`, or nothing for a table in the \
             database"
        )));
    }
    let until = Instant::now() + SERVICE_START_TIMEOUT;
    let kept = days(config.keep_results_days) + REDIS_EXPIRY_MARGIN;
    let options = RedisOptions { keep: kept, ..RedisOptions::default() };
    loop {
        match RedisQueue::connect(url.expose(), clock.clone(), tasks, &options).await {
            Ok(queue) => {
                let ended = SqlEndedEvents::fed_from(db.clone(), queue.ended_stream());
                return Ok(OpenQueue { queue: Arc::new(queue), ended });
            }
            Err(error @ QueueError::Unavailable(_)) if Instant::now() < until => {
                warn!(%error, "The queue does not answer yet");
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                let url = redact_url(url.expose());
                return Err(Error::Store(format!("the queue at {url}: {error}")));
            }
        }
    }
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86_400)
}

/// The URL without user and password.
fn redact_url(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.into(),
    }
}

/// Files where one process has all roles; the database where several must read the records.
fn open_journal(
    config: &Config,
    folder: &Path,
    db: &SqlDatabase,
) -> Result<(Arc<dyn InvocationJournal>, JournalWriter), Error> {
    let age_max = days(config.journal.keep_days);
    if config.roles()? != Roles::ALL || config.database.is_some() {
        let options = SqlJournalOptions { age_max, ..SqlJournalOptions::default() };
        let (journal, writer) = SqlJournal::new(db.clone(), options);
        return Ok((Arc::new(journal), writer));
    }
    let bytes_max = config.journal.keep_mb.max(1) * MIB;
    let options = SegmentOptions { age_max, bytes_max, ..SegmentOptions::default() };
    let opened = SegmentJournal::open(&folder.join("journal"), options);
    let (journal, writer) = opened.map_err(|error| Error::Store(error.to_string()))?;
    Ok((Arc::new(journal), writer))
}

impl SandboxAdapters {
    /// Docker if an engine answers, else processes, unless the configuration names one of them.
    pub(crate) async fn choose(
        config: &Config,
        node: &NodeId,
        folder: &Path,
        tasks: &TaskTracker,
    ) -> Result<Self, Error> {
        let program = std::env::current_exe()
            .map_err(|error| Error::Sandbox(format!("this program's own file: {error}")))?;
        let installed = hanshu_runtimes::runtime_dir::install(&folder.join("runtime"), &program);
        let runtime_dir = installed.map_err(|error| {
            Error::Sandbox(format!(
                "the runtime's files cannot be put into the data folder: {error}"
            ))
        })?;
        let docker = DockerOptions {
            node: node.clone(),
            engine: config.docker_host.clone(),
            dir: folder.join("docker"),
            runtime_dir: runtime_dir.clone(),
        };
        let process = ProcessOptions {
            node: node.clone(),
            dir: folder.join("process"),
            runtime_dir,
            shown: Vec::new(),
        };
        let chosen = match config.sandbox {
            SandboxChoice::Docker => Self::docker(docker, tasks).await,
            SandboxChoice::Process => Self::process(process, &config.pool, tasks).await,
            SandboxChoice::Auto => match Self::docker(docker, tasks).await {
                Ok(chosen) => Ok(chosen),
                Err(error) => {
                    info!(%error, "No Docker engine: functions run as processes");
                    Self::process(process, &config.pool, tasks).await
                }
            },
        };
        chosen.map_err(|error| Error::Sandbox(error.to_string()))
    }

    async fn docker(options: DockerOptions, tasks: &TaskTracker) -> Result<Self, StartError> {
        let backend = DockerBackend::connect(options, tasks.clone()).await?;
        let images = Arc::new(backend.images());
        Ok(Self { backend: Arc::new(backend), images })
    }

    async fn process(
        options: ProcessOptions,
        pool: &InvokerOptions,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let images = HostPrograms::new(pool.clone());
        let backend = ProcessBackend::new(options, tasks.clone()).await?;
        Ok(Self { backend: Arc::new(backend), images: Arc::new(images) })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(super::redact_url("redis://:s3cret@host:1/2"), "redis://host:1/2");
        assert_eq!(super::redact_url("redis://host:1"), "redis://host:1");
    }
}
