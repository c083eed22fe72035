//! Everything that the servers stand on, and the blows that it takes.

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

use crate::chronicle::{Chronicle, Trial};
use crate::functions;
use crate::groups::end_forgotten;
use crate::plan::{Blow, Fault, SERVICES, WORLDS, name};
use crate::services::{Disk, Engine, Postgres, Redis, Server, ServerOptions, cgroup};

/// Room in a data folder's disk, MiB: the program, packages, a journal of 32 MiB, the database.
const DISK_MB: u64 = 2_048;

/// So long after an engine is back the servers have swept what they left in it.
const SWEPT: Duration = Duration::from_secs(8);

/// One server and its disk.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Mutex<Server>,
    pub(crate) disk: Mutex<Disk>,
    pub(crate) data: PathBuf,
    pub(crate) node: String,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Field {
    /// The control group of all sandboxes.
    pub(crate) cgroup: String,
    pub(crate) engine: Mutex<Engine>,
    redis: Mutex<Redis>,
    postgres: Mutex<Postgres>,
    pub(crate) sites: Vec<Site>,
    killed_engine: AtomicBool,
    /// Containers that a killed engine forgot.
    pub(crate) forgotten: AtomicUsize,
    chronicle: Arc<Chronicle>,
}

impl Field {
    /// Starts everything under `work` and deploys the functions.
    ///
    /// # Errors
    /// Something is not installed, or does not start.
    pub(crate) async fn prepare(
        work: &Path,
        program: &Path,
        chronicle: Arc<Chronicle>,
    ) -> anyhow::Result<Self> {
        let engine = async {
            let engine = Engine::start(work).await?;
            engine.load(&work.join("images.tar")).await.map(|()| engine)
        };
        let (redis_dir, postgres_dir) = (work.join("redis"), work.join("postgres"));
        let (engine, redis, postgres) =
            tokio::join!(engine, Redis::start(&redis_dir), Postgres::start(&postgres_dir));
        let (engine, redis, postgres) = (engine?, redis?, postgres?);
        let mut sites = Vec::new();
        for world in 0..WORLDS {
            sites.push(site(work, program, world, &engine.url()).await?);
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
            killed_engine: AtomicBool::new(false),
            forgotten: AtomicUsize::new(0),
            chronicle,
        })
    }

    /// Deals all blows, each at its time; returns when the last is over.
    pub(crate) async fn befall(self: Arc<Self>, plan: Vec<Blow>) {
        let (begun, blows) = (Instant::now(), TaskTracker::new());
        for blow in plan {
            sleep_until(begun + blow.at).await;
            let field = self.clone();
            blows.spawn(async move { field.take(blow).await });
        }
        blows.close();
        blows.wait().await;
    }

    async fn take(&self, blow: Blow) {
        let victim = match blow.fault {
            Fault::KillSandbox { world } => self.kill_sandbox(world, blow.pick).await,
            Fault::RemoveContainer { world } => self.remove_container(world, blow.pick).await,
            Fault::StopEngine | Fault::KillEngine => self.break_engine(blow).await,
            Fault::KillRedis | Fault::PauseRedis => self.break_redis(blow).await,
            Fault::StopPostgres => self.break_postgres(blow).await,
            Fault::KillServer { world } => self.kill_server(world, blow).await,
            Fault::FillDisk { world } => self.fill_disk(world, blow).await,
        };
        match victim {
            Ok(what) => self.chronicle.note(format!("over: {}: {what}", blow.fault)),
            Err(error) => self.chronicle.wrong(format!("{}: {error:#}", blow.fault)),
        }
    }

    fn begin(&self, blow: Blow) {
        self.chronicle.note(format!("{} for {:?}", blow.fault, blow.lasts));
    }

    /// A container of this server, if it has one and the engine answers.
    async fn container(&self, world: usize, pick: u64) -> Option<String> {
        let filter = format!("label=hanshu={}", self.sites.get(world)?.node);
        let listed = ["ps", "-q", "--filter", &filter];
        let listed = self.engine.lock().await.docker(&listed).await.ok()?;
        choose(&listed.lines().collect::<Vec<_>>(), pick).map(|id| (*id).to_owned())
    }

    async fn kill_sandbox(&self, world: usize, pick: u64) -> anyhow::Result<String> {
        let Some(id) = self.container(world, pick).await else { return Ok("none".into()) };
        let top = self.engine.lock().await.docker(&["top", &id, "-o", "pid"]).await;
        // It may have gone in between.
        let Ok(top) = top else { return Ok(format!("{id} has gone")) };
        let pids: Vec<i32> = top.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let Some(pid) = choose(&pids, pick >> 32) else { return Ok(format!("{id} is empty")) };
        let trial = self.chronicle.begins(Trial::Sandbox, Some(world));
        let killed = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        self.chronicle.ends(trial);
        Ok(format!("process {pid}, of {}, of {id}: {killed:?}", pids.len()))
    }

    async fn remove_container(&self, world: usize, pick: u64) -> anyhow::Result<String> {
        let Some(id) = self.container(world, pick).await else { return Ok("none".into()) };
        let trial = self.chronicle.begins(Trial::Sandbox, Some(world));
        let removed = self.engine.lock().await.docker(&["rm", "-f", &id]).await;
        self.chronicle.ends(trial);
        Ok(match removed {
            Ok(_) => id,
            Err(error) => format!("{id}: {error:#}"),
        })
    }

    async fn break_engine(&self, blow: Blow) -> anyhow::Result<String> {
        self.restart_engine(blow).await?;
        if blow.fault == Fault::KillEngine {
            self.killed_engine.store(true, Ordering::Relaxed);
            // The servers sweep too, and what they remove the engine may forget.
            sleep(SWEPT).await;
            self.end_forgotten().await?;
        }
        Ok("it answers".into())
    }

    /// Ends what a killed engine forgot.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) async fn end_forgotten(&self) -> anyhow::Result<()> {
        let engine = self.engine.lock().await;
        for id in end_forgotten(&self.cgroup, &engine).await? {
            if !self.killed_engine.load(Ordering::Relaxed) {
                self.chronicle.wrong(format!("left over: of {id}, though no dockerd was killed"));
            }
            self.chronicle.note(format!("a killed dockerd forgot the container {id}"));
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn restart_engine(&self, blow: Blow) -> anyhow::Result<()> {
        let mut engine = self.engine.lock().await;
        self.begin(blow);
        let trial = self.chronicle.begins(Trial::Engine, None);
        match blow.fault {
            Fault::StopEngine => engine.stop().await?,
            _ => engine.kill().await?,
        }
        sleep(blow.lasts).await;
        engine.start_again().await?;
        self.chronicle.ends(trial);
        Ok(())
    }

    async fn break_redis(&self, blow: Blow) -> anyhow::Result<String> {
        let mut redis = self.redis.lock().await;
        self.begin(blow);
        let trial = self.chronicle.begins(Trial::Store, Some(SERVICES));
        if blow.fault == Fault::PauseRedis {
            redis.pause()?;
            sleep(blow.lasts).await;
            redis.resume()?;
        } else {
            redis.kill().await?;
            sleep(blow.lasts).await;
            redis.start_again().await?;
        }
        self.chronicle.ends(trial);
        Ok("it answers".into())
    }

    async fn break_postgres(&self, blow: Blow) -> anyhow::Result<String> {
        let postgres = self.postgres.lock().await;
        self.begin(blow);
        let trial = self.chronicle.begins(Trial::Store, Some(SERVICES));
        postgres.stop().await?;
        sleep(blow.lasts).await;
        postgres.start_again().await?;
        self.chronicle.ends(trial);
        Ok("it answers".into())
    }

    async fn kill_server(&self, world: usize, blow: Blow) -> anyhow::Result<String> {
        let site = self.sites.get(world).context("no such server")?;
        let mut server = site.server.lock().await;
        self.begin(blow);
        if let Some(status) = server.ended() {
            self.chronicle.wrong(format!("the server {} ended by itself: {status}", name(world)));
        }
        let trial = self.chronicle.begins(Trial::Server, Some(world));
        // It may have ended by itself, which is said above.
        let _ = server.kill().await;
        sleep(blow.lasts / 4).await;
        server.start_again().await?;
        self.chronicle.ends(trial);
        Ok("it is up".into())
    }

    async fn fill_disk(&self, world: usize, blow: Blow) -> anyhow::Result<String> {
        let site = self.sites.get(world).context("no such server")?;
        let disk = site.disk.lock().await;
        self.begin(blow);
        let trial = self.chronicle.begins(Trial::Disk, Some(world));
        disk.fill().await?;
        sleep(blow.lasts).await;
        disk.free()?;
        self.chronicle.ends(trial);
        Ok("there is room".into())
    }

    /// Nothing of the servers is left; stops what they stood on.
    ///
    /// # Errors
    /// Something does not stop, or a disk is still in use.
    pub(crate) async fn tear_down(self) -> anyhow::Result<()> {
        for site in self.sites {
            site.disk.into_inner().unmount().await?;
        }
        self.engine.into_inner().stop().await?;
        self.postgres.into_inner().stop().await?;
        self.redis.into_inner().kill().await
    }
}

async fn site(work: &Path, program: &Path, world: usize, engine: &str) -> anyhow::Result<Site> {
    let dir = work.join(name(world));
    std::fs::create_dir_all(&dir)?;
    let disk = Disk::new(&dir, DISK_MB).await?;
    let data = disk.path().join("data");
    std::fs::create_dir(&data)?;
    let mut environment = vec![
        ("HANSHU_DOCKER_HOST", engine),
        ("HANSHU_POOL__KEEP_ALIVE_S", "8"),
        ("HANSHU_POOL__MEMORY_MB", "6144"),
        ("HANSHU_JOURNAL__KEEP_MB", "32"),
        ("HANSHU_LOG", "info"),
    ];
    if world == SERVICES {
        environment.push(("HANSHU_DATABASE", Postgres::URL));
        environment.push(("HANSHU_QUEUE", Redis::URL));
    }
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let port = u16::try_from(9_001 + world)?;
    let options = ServerOptions {
        program: program.into(),
        data: data.clone(),
        log: dir.join("server.log"),
        ports: [port, port + 80],
        environment: environment.into_iter().map(own).collect(),
    };
    let server = Server::start(options).await?;
    let code = dir.join("code");
    functions::write(&code, world)?;
    server.hanshu(&["deploy", &code.display().to_string()]).await?;
    let node = server.node()?;
    Ok(Site { server: Mutex::new(server), disk: Mutex::new(disk), data, node })
}

fn choose<T>(from: &[T], pick: u64) -> Option<&T> {
    let count = u64::try_from(from.len()).ok().filter(|count| 0 < *count)?;
    from.get(usize::try_from(pick % count).ok()?)
}

/// How long the longest of a plan's last blows may take to be over.
pub(crate) const LAST_BLOW: Duration = Duration::from_secs(120);
