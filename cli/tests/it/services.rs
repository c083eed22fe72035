//! Services of one's own, to be broken: a disk, a Redis, a PostgreSQL, the way to the engine.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world::{HANSHU, PATIENCE, signal};

const MIB: u64 = 1024 * 1024;

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a command, which must succeed; its standard output.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether we are root. Where not, a story that mounts is said to be left out; in CI it fails.
pub(crate) fn is_root() -> bool {
    let root = run("id", &["-u"]).trim() == "0";
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI needs root, for mounts");
        eprintln!("not root: this story was NOT run");
    }
    root
}

/// A small file system in a file, mounted.
pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    /// With room for the program, which the server copies in, and so many MiB.
    pub(crate) fn new(free_mb: u64) -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let program_mb = fs::metadata(HANSHU).unwrap().len() / MIB;
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len((program_mb + free_mb) * MIB).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", text(&disk.image())]);
        fs::create_dir(disk.mount()).unwrap();
        disk.attach();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn attach(&self) {
        run("mount", &["-o", "loop", text(&self.image()), text(&self.mount())]);
    }

    /// Unmounts it. What was killed lets go of it when the kernel gets round to that: a process in
    /// our namespace keeps it busy, and one in another keeps its loop device.
    fn detach(&self) {
        self.until("it is unmounted", || {
            let ended = Command::new("umount").arg(self.mount()).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success() || said.contains("busy"), "{said}");
            ended.status.success()
        });
        self.until("its loop device is free", || {
            run("losetup", &["-j", text(&self.image())]).is_empty()
        });
    }

    /// Waits until something is so of the disk; where it never is, names the processes that use it.
    #[track_caller]
    fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so() {
            assert!(Instant::now() < end, "it never happened: {what}. Used by {:#?}", self.users());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes with something of it open or mounted.
    fn users(&self) -> Vec<String> {
        let name = self.dir.path().file_name().unwrap().to_str().unwrap();
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let is_of_it = |path: PathBuf| path.to_string_lossy().contains(name);
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let users = processes.filter(|process| {
            let links = ["cwd", "root", "exe"].map(|link| process.join(link));
            let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let mut links = links.into_iter().chain(files.map(|file| file.path()));
            // In our namespace everybody has it mounted.
            let elsewhere = fs::read_link(process.join("ns/mnt")).is_ok_and(|space| space != own);
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            elsewhere && mounts.contains(name)
                || links.any(|link| fs::read_link(link).is_ok_and(is_of_it))
        });
        let named = users.map(|process| {
            let said = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            format!("{} {}", process.display(), said.replace('\0', " "))
        });
        named.collect()
    }

    /// A folder on it.
    pub(crate) fn folder(&self) -> TempDir {
        tempfile::tempdir_in(self.mount()).unwrap()
    }

    /// Leaves about so many KiB.
    pub(crate) fn fill(&self, left_kb: u64) {
        let ballast = self.mount().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let block = vec![0; 64 * 1024];
        let full = loop {
            match file.write_all(&block).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left_kb * 1024)).unwrap();
        file.sync_all().unwrap();
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.mount().join("ballast")).unwrap();
    }

    /// Mounts it without the right to write. Nothing may be open for writing.
    pub(crate) fn make_read_only(&self) {
        run("mount", &["-o", "remount,ro", text(&self.mount())]);
    }

    /// What the kernel does when the device fails: read-only from one moment to the next.
    pub(crate) fn fail(&self) {
        run("mount", &["-o", "remount,abort", text(&self.mount())]);
    }

    /// Repairs and mounts it again. Nobody may use it.
    pub(crate) fn repair(&self) {
        self.detach();
        // 1: repaired.
        let checked = Command::new("e2fsck").arg("-fy").arg(self.image()).output().unwrap();
        assert!(checked.status.code().is_some_and(|code| code < 2), "{checked:?}");
        self.attach();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mount()).status();
    }
}

/// A Redis that appends every write to a file.
pub(crate) struct Redis {
    dir: TempDir,
    port: u16,
    flags: Vec<String>,
    server: Option<Child>,
}

impl Redis {
    /// One that hanshu is content with.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--maxmemory-policy", "noeviction"])
    }

    /// One with other settings.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut redis = Self { dir, port: free_port(), flags, server: None };
        redis.start_again();
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it where it was.
    pub(crate) fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendfsync", "always", "--dir"])
            .arg(self.dir.path())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.server = Some(command.spawn().expect("redis-server is needed"));
        until("Redis answers", || self.try_ask(&["ping"]).trim() == "PONG");
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// It stays connected and says nothing.
    pub(crate) fn pause(&self) {
        signal(self.server.as_ref().unwrap().id(), "STOP");
    }

    pub(crate) fn resume(&self) {
        signal(self.server.as_ref().unwrap().id(), "CONT");
    }

    /// A command; its answer as `redis-cli` prints it.
    #[track_caller]
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let mut all = vec!["-p".to_owned(), self.port.to_string()];
        all.extend(args.iter().map(ToString::to_string));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        run("redis-cli", &all).trim_end().to_owned()
    }

    fn try_ask(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let asked = Command::new("redis-cli").args(["-p", &port]).args(args).output();
        String::from_utf8_lossy(&asked.unwrap().stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A PostgreSQL with an empty database.
pub(crate) struct Postgres {
    dir: TempDir,
    port: u16,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let postgres = Self { dir: tempfile::tempdir().unwrap(), port: free_port() };
        if is_superuser() {
            run("chown", &["postgres", text(postgres.dir.path())]);
        }
        let data = postgres.data();
        let made = postgres.tool("initdb", &["-A", "trust", "-U", "postgres", "-N", "-D", &data]);
        assert!(made.status.success(), "{made:?}");
        postgres.start_again();
        postgres
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn start_again(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off",
            self.port
        );
        let log = format!("{}/log", self.dir.path().display());
        let args = ["start", "-w", "-D", &self.data(), "-l", &log, "-o", &options];
        let started = self.tool("pg_ctl", &args);
        assert!(started.status.success(), "{started:?}");
    }

    /// Ends it in the middle of what it does.
    pub(crate) fn stop(&self) {
        let args = ["stop", "-w", "-m", "immediate", "-D", &self.data()];
        let stopped = self.tool("pg_ctl", &args);
        assert!(stopped.status.success(), "{stopped:?}");
    }

    /// The rows of a query, as text.
    pub(crate) fn ask(&self, query: &str) -> String {
        run("psql", &[&self.url(), "-Atqc", query])
    }

    fn data(&self) -> String {
        format!("{}/data", self.dir.path().display())
    }

    /// One of PostgreSQL's programs; never as root, which they refuse.
    fn tool(&self, name: &str, args: &[&str]) -> Output {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is needed")
            .map(|entry| entry.unwrap().path().join("bin").join(name))
            .filter(|path| path.is_file())
            .collect();
        versions.sort();
        let program = versions.pop().expect("PostgreSQL is needed");
        let mut command = if is_superuser() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // To files: what it starts keeps them open.
        let said = self.dir.path().join(format!("{name}.said"));
        let file = fs::File::create(&said).unwrap();
        command.args(args).current_dir("/").stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        Output { status, stdout: fs::read(said).unwrap(), stderr: Vec::new() }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.tool("pg_ctl", &["stop", "-m", "immediate", "-D", &self.data()]);
    }
}

fn is_superuser() -> bool {
    run("id", &["-u"]).trim() == "0"
}

/// A socket before the Docker engine's, that can be cut.
pub(crate) struct EngineRoad {
    dir: TempDir,
    open: Arc<Mutex<Vec<UnixStream>>>,
    /// Nothing is carried: who asks hears nothing.
    blocked: Arc<AtomicBool>,
    listening: Option<(UnixListener, std::thread::JoinHandle<()>)>,
}

impl EngineRoad {
    const ENGINE: &str = "/var/run/docker.sock";

    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut road = Self { dir, open: Arc::default(), blocked: Arc::default(), listening: None };
        road.mend();
        road
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// What `docker_host` is to be.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    /// The engine can be reached (again).
    pub(crate) fn mend(&mut self) {
        let listener = UnixListener::bind(self.path()).unwrap();
        let (accepting, open) = (listener.try_clone().unwrap(), self.open.clone());
        let blocked = self.blocked.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((near, _)) = accepting.accept() {
                if blocked.load(Ordering::SeqCst) {
                    open.lock().unwrap().push(near);
                    continue;
                }
                let Ok(far) = UnixStream::connect(Self::ENGINE) else { continue };
                let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                open.lock().unwrap().extend(ends);
                pump(near.try_clone().unwrap(), far.try_clone().unwrap());
                pump(far, near);
            }
        });
        self.listening = Some((listener, thread));
    }

    /// New questions are taken and not answered, or again are.
    pub(crate) fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
        if !blocked {
            for end in self.open.lock().unwrap().drain(..) {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Nobody answers there, and what was asked is cut off.
    pub(crate) fn cut(&mut self) {
        fs::remove_file(self.path()).unwrap();
        let (listener, thread) = self.listening.take().unwrap();
        shut(&listener);
        thread.join().unwrap();
        for end in self.open.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Ends `accept` on every copy of the socket.
fn shut(listener: &UnixListener) {
    use std::os::fd::{AsFd as _, OwnedFd};
    let copy: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
    UnixStream::from(copy).shutdown(Shutdown::Both).unwrap();
}

/// Carries what one side says to the other, until it ends.
fn pump(mut from: UnixStream, mut to: UnixStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
