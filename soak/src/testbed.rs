//! The servers under test with the services they use, and the injection of faults into them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::cgroups::end_lost_containers;
use crate::event_log::{EventLog, OutageKind};
use crate::fault_plan::{FaultKind, PlannedFault, SERVER_COUNT, SERVICES_SERVER, server_name};
use crate::services::{
    DockerDaemon, HanshuServer, HanshuServerOptions, LoopDisk, PostgresServer, RedisServer, cgroup,
};
use crate::test_function;

/// Size of a data folder's disk, MiB: the program, packages, a journal of 32 MiB, the database.
const DISK_MB: u64 = 2_048;

/// How long the servers take to sweep their containers after the engine has restarted.
const SWEEP_WAIT: Duration = Duration::from_secs(8);

/// One server with its disk.
#[derive(Debug)]
pub(crate) struct ServerSite {
    pub(crate) server: Mutex<HanshuServer>,
    pub(crate) disk: Mutex<LoopDisk>,
    pub(crate) data: PathBuf,
    pub(crate) node: String,
}

/// Both servers, the engine, Redis and PostgreSQL.
#[derive(Debug)]
pub(crate) struct Testbed {
    /// The control group that holds all sandboxes.
    pub(crate) cgroup: String,
    pub(crate) engine: Mutex<DockerDaemon>,
    redis: Mutex<RedisServer>,
    postgres: Mutex<PostgresServer>,
    pub(crate) sites: Vec<ServerSite>,
    engine_was_killed: AtomicBool,
    /// Containers that a killed engine has lost.
    pub(crate) lost: AtomicUsize,
    event_log: Arc<EventLog>,
}

impl Testbed {
    /// Starts everything under `work` and deploys the functions.
    ///
    /// # Errors
    /// Something is not installed, or does not start.
    pub(crate) async fn prepare(
        work: &Path,
        program: &Path,
        event_log: Arc<EventLog>,
    ) -> anyhow::Result<Self> {
        let engine = async {
            let engine = DockerDaemon::start(work).await?;
            engine.load(&work.join("images.tar")).await.map(|()| engine)
        };
        let (redis_dir, postgres_dir) = (work.join("redis"), work.join("postgres"));
        let (engine, redis, postgres) = tokio::join!(
            engine,
            RedisServer::start(&redis_dir),
            PostgresServer::start(&postgres_dir)
        );
        let (engine, redis, postgres) = (engine?, redis?, postgres?);
        let mut sites = Vec::new();
        for index in 0..SERVER_COUNT {
            sites.push(site(work, program, index, &engine.url()).await?);
        }
        let (engine, redis, postgres) =
            (Mutex::new(engine), Mutex::new(redis), Mutex::new(postgres));
        let cgroup = cgroup(work);
        Ok(Self {
            cgroup,
            engine,
            redis,
            postgres,
            sites,
            engine_was_killed: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
            event_log,
        })
    }

    /// Injects all faults, each at its time; returns when the last one is over.
    pub(crate) async fn inject(self: Arc<Self>, plan: Vec<PlannedFault>) {
        let (begun, faults) = (Instant::now(), TaskTracker::new());
        for fault in plan {
            sleep_until(begun + fault.at).await;
            let testbed = self.clone();
            faults.spawn(async move { testbed.apply(fault).await });
        }
        faults.close();
        faults.wait().await;
    }

    async fn apply(&self, fault: PlannedFault) {
        let applied = match fault.kind {
            FaultKind::KillSandbox { server } => self.kill_sandbox(server, fault.victim).await,
            FaultKind::RemoveContainer { server } => {
                self.remove_container(server, fault.victim).await
            }
            FaultKind::StopEngine | FaultKind::KillEngine => self.break_engine(fault).await,
            FaultKind::KillRedis | FaultKind::PauseRedis => self.break_redis(fault).await,
            FaultKind::StopPostgres => self.break_postgres(fault).await,
            FaultKind::KillServer { server } => self.kill_server(server, fault).await,
            FaultKind::FillDisk { server } => self.fill_disk(server, fault).await,
        };
        match applied {
            Ok(result) => self.event_log.record(format!("over: {}: {result}", fault.kind)),
            Err(error) => self.event_log.report_violation(format!("{}: {error:#}", fault.kind)),
        }
    }

    fn record_start(&self, fault: PlannedFault) {
        self.event_log.record(format!("{} for {:?}", fault.kind, fault.duration));
    }

    /// Chooses a container of this server, if it has one and the engine answers.
    async fn container(&self, index: usize, victim: u64) -> Option<String> {
        let filter = format!("label=hanshu={}", self.sites.get(index)?.node);
        let listed = ["ps", "-q", "--filter", &filter];
        let listed = self.engine.lock().await.docker(&listed).await.ok()?;
        choose(&listed.lines().collect::<Vec<_>>(), victim).map(|id| (*id).to_owned())
    }

    async fn kill_sandbox(&self, index: usize, victim: u64) -> anyhow::Result<String> {
        let Some(id) = self.container(index, victim).await else { return Ok("none".into()) };
        let top = self.engine.lock().await.docker(&["top", &id, "-o", "pid"]).await;
        // It may have ended in between.
        let Ok(top) = top else { return Ok(format!("{id} has gone")) };
        let pids: Vec<i32> = top.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let Some(pid) = choose(&pids, victim >> 32) else { return Ok(format!("{id} is empty")) };
        let outage = self.event_log.begin_outage(OutageKind::Sandbox, Some(index));
        let killed = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        self.event_log.end_outage(outage);
        Ok(format!("process {pid}, of {}, of {id}: {killed:?}", pids.len()))
    }

    async fn remove_container(&self, index: usize, victim: u64) -> anyhow::Result<String> {
        let Some(id) = self.container(index, victim).await else { return Ok("none".into()) };
        let outage = self.event_log.begin_outage(OutageKind::Sandbox, Some(index));
        let removed = self.engine.lock().await.docker(&["rm", "-f", &id]).await;
        self.event_log.end_outage(outage);
        Ok(match removed {
            Ok(_) => id,
            Err(error) => format!("{id}: {error:#}"),
        })
    }

    async fn break_engine(&self, fault: PlannedFault) -> anyhow::Result<String> {
        self.restart_engine(fault).await?;
        if fault.kind == FaultKind::KillEngine {
            self.engine_was_killed.store(true, Ordering::Relaxed);
            // While the servers sweep, the engine may lose what they remove.
            sleep(SWEEP_WAIT).await;
            self.end_lost_containers().await?;
        }
        Ok("it answers".into())
    }

    /// Ends and counts the containers that a killed engine has lost.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn end_lost_containers(&self) -> anyhow::Result<()> {
        let engine = self.engine.lock().await;
        for id in end_lost_containers(&self.cgroup, &engine).await? {
            if !self.engine_was_killed.load(Ordering::Relaxed) {
                self.event_log
                    .report_violation(format!("left over: of {id}, though no dockerd was killed"));
            }
            self.event_log.record(format!("a killed dockerd lost the container {id}"));
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn restart_engine(&self, fault: PlannedFault) -> anyhow::Result<()> {
        let mut engine = self.engine.lock().await;
        self.record_start(fault);
        let outage = self.event_log.begin_outage(OutageKind::Engine, None);
        match fault.kind {
            FaultKind::StopEngine => engine.stop().await?,
            _ => engine.kill().await?,
        }
        sleep(fault.duration).await;
        engine.start_again().await?;
        self.event_log.end_outage(outage);
        Ok(())
    }

    async fn break_redis(&self, fault: PlannedFault) -> anyhow::Result<String> {
        let mut redis = self.redis.lock().await;
        self.record_start(fault);
        let outage = self.event_log.begin_outage(OutageKind::Store, Some(SERVICES_SERVER));
        if fault.kind == FaultKind::PauseRedis {
            redis.pause()?;
            sleep(fault.duration).await;
            redis.resume()?;
        } else {
            redis.kill().await?;
            sleep(fault.duration).await;
            redis.start_again().await?;
        }
        self.event_log.end_outage(outage);
        Ok("it answers".into())
    }

    async fn break_postgres(&self, fault: PlannedFault) -> anyhow::Result<String> {
        let postgres = self.postgres.lock().await;
        self.record_start(fault);
        let outage = self.event_log.begin_outage(OutageKind::Store, Some(SERVICES_SERVER));
        postgres.stop().await?;
        sleep(fault.duration).await;
        postgres.start_again().await?;
        self.event_log.end_outage(outage);
        Ok("it answers".into())
    }

    async fn kill_server(&self, index: usize, fault: PlannedFault) -> anyhow::Result<String> {
        let site = self.sites.get(index).context("no such server")?;
        let mut server = site.server.lock().await;
        self.record_start(fault);
        if let Some(status) = server.ended() {
            self.event_log.report_violation(format!(
                "the server {} ended by itself: {status}",
                server_name(index)
            ));
        }
        let outage = self.event_log.begin_outage(OutageKind::Server, Some(index));
        // It may have ended by itself, which is reported above.
        let _ = server.kill().await;
        sleep(fault.duration / 4).await;
        server.start_again().await?;
        self.event_log.end_outage(outage);
        Ok("it is up".into())
    }

    async fn fill_disk(&self, index: usize, fault: PlannedFault) -> anyhow::Result<String> {
        let site = self.sites.get(index).context("no such server")?;
        let disk = site.disk.lock().await;
        self.record_start(fault);
        let outage = self.event_log.begin_outage(OutageKind::Disk, Some(index));
        disk.fill().await?;
        sleep(fault.duration).await;
        disk.free()?;
        self.event_log.end_outage(outage);
        Ok("there is room".into())
    }

    /// Stops the services. The servers must have stopped.
    ///
    /// # Errors
    /// A service does not stop, or a disk is still in use.
    pub(crate) async fn tear_down(self) -> anyhow::Result<()> {
        for site in self.sites {
            site.disk.into_inner().unmount().await?;
        }
        self.engine.into_inner().stop().await?;
        self.postgres.into_inner().stop().await?;
        self.redis.into_inner().kill().await
    }
}

async fn site(
    work: &Path,
    program: &Path,
    index: usize,
    engine: &str,
) -> anyhow::Result<ServerSite> {
    let dir = work.join(server_name(index));
    std::fs::create_dir_all(&dir)?;
    let disk = LoopDisk::new(&dir, DISK_MB).await?;
    let data = disk.path().join("data");
    std::fs::create_dir(&data)?;
    let mut environment = vec![
        ("HANSHU_DOCKER_HOST", engine),
        ("HANSHU_POOL__KEEP_ALIVE_S", "8"),
        ("HANSHU_POOL__MEMORY_MB", "6144"),
        ("HANSHU_JOURNAL__KEEP_MB", "32"),
        ("HANSHU_LOG", "info"),
    ];
    if index == SERVICES_SERVER {
        environment.push(("HANSHU_DATABASE", PostgresServer::URL));
        environment.push(("HANSHU_QUEUE", RedisServer::URL));
    }
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let port = u16::try_from(9_001 + index)?;
    let options = HanshuServerOptions {
        program: program.into(),
        data: data.clone(),
        log: dir.join("server.log"),
        ports: [port, port + 80],
        environment: environment.into_iter().map(own).collect(),
    };
    let server = HanshuServer::start(options).await?;
    let code = dir.join("code");
    test_function::write(&code, index)?;
    server.hanshu(&["deploy", &code.display().to_string()]).await?;
    let node = server.node()?;
    Ok(ServerSite { server: Mutex::new(server), disk: Mutex::new(disk), data, node })
}

fn choose<T>(from: &[T], victim: u64) -> Option<&T> {
    let count = u64::try_from(from.len()).ok().filter(|count| 0 < *count)?;
    from.get(usize::try_from(victim % count).ok()?)
}

/// Longest time until the last fault of a plan is over.
pub(crate) const LAST_FAULT_TIMEOUT: Duration = Duration::from_secs(120);
