//! A server of one's own: the built program, an own data folder, free ports.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const HANSHU: &str = env!("CARGO_BIN_EXE_hanshu");
/// The longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What every story about functions runs on.
pub(crate) const BACKENDS: [&str; 2] = ["process", "docker"];

/// A running server with its data folder.
pub(crate) struct World {
    server: Option<Child>,
    /// How long the log was when the server was started.
    logged_before: usize,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// Whom it runs as, if not as us.
    user: Option<u32>,
    pub(crate) data: TempDir,
    http: reqwest::Client,
    pub(crate) endpoint: String,
    pub(crate) http_endpoint: String,
    pub(crate) id: String,
    pub(crate) key: String,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fault: String,
    pub(crate) request_id: String,
    pub(crate) body: Vec<u8>,
}

impl World {
    /// A server on the embedded default with this backend.
    pub(crate) fn start(backend: &str) -> Self {
        Self::start_with(&["--sandbox", backend], &[PATIENT])
    }

    /// A server with these flags and variables beside the usual ones.
    pub(crate) fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags, environment)
    }

    /// A server that waits for a service which `comes` only after the server has missed it.
    #[allow(dead_code, reason = "for the stories; the hostile functions share this file")]
    pub(crate) fn start_before(flags: &[&str], comes: impl FnOnce()) -> Self {
        let mut world = Self::new(tempfile::tempdir().unwrap(), flags, &[]);
        let log = world.log_path();
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| world.start_server());
            let end = Instant::now() + PATIENCE;
            let missed = || std::fs::read_to_string(&log).unwrap_or_default();
            while !missed().contains("does not answer yet") {
                assert!(Instant::now() < end, "the server misses nothing: {}", missed());
                std::thread::sleep(Duration::from_millis(20));
            }
            comes();
            starting.join().unwrap();
        });
        world
    }

    /// A server with its data in this folder.
    pub(crate) fn start_in(data: TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut world = Self::new(data, flags, environment);
        world.start_server();
        world
    }

    /// A server that this user runs, who may read nothing of ours. We are root.
    #[allow(dead_code, reason = "for server/tests/hostile, which shares this file")]
    pub(crate) fn start_as(user: u32, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut world = Self::new(tempfile::tempdir().unwrap(), flags, environment);
        std::os::unix::fs::chown(world.data.path(), Some(user), Some(user)).unwrap();
        std::fs::copy(HANSHU, world.own_program()).unwrap();
        world.user = Some(user);
        world.start_server();
        world
    }

    fn new(data: TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self {
            server: None,
            logged_before: 0,
            flags: flags.iter().map(ToString::to_string).collect(),
            environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            user: None,
            data,
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE * 3).build().unwrap(),
            endpoint: String::new(),
            http_endpoint: String::new(),
            id: String::new(),
            key: String::new(),
        }
    }

    /// Tests share it, each with a runtime of its own: connections would end with the runtime that
    /// made them.
    #[allow(dead_code, reason = "for server/tests/hostile, which shares this file")]
    pub(crate) fn without_kept_connections(mut self) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE * 3);
        self.http = client.pool_max_idle_per_host(0).build().unwrap();
        self
    }

    /// The program where a user finds it who may not look into our folders.
    fn own_program(&self) -> PathBuf {
        self.data.path().join("program")
    }

    /// Starts the server (again).
    pub(crate) fn start_server(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let _ = std::fs::remove_file(self.data.path().join("credentials.env"));
        self.logged_before = self.log().len();
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let program = self.user.map_or_else(|| PathBuf::from(HANSHU), |_| self.own_program());
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user).current_dir("/");
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data"])
            .arg(self.data.path())
            .args(&self.flags)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.server = Some(command.spawn().unwrap());
        let until = Instant::now() + PATIENCE;
        while !self.is_up() {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < until, "the server does not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A gateway tells its endpoints; other roles only log that they are ready.
    fn is_up(&mut self) -> bool {
        let other = |roles: &String| roles != "all" && !roles.contains("gateway");
        let roles = self.flags.iter().skip_while(|flag| *flag != "--roles").nth(1);
        if roles.is_some_and(other) {
            self.log().get(self.logged_before..).is_some_and(|log| log.contains("is ready"))
        } else {
            self.read_credentials()
        }
    }

    fn read_credentials(&mut self) -> bool {
        let path = self.data.path().join("credentials.env");
        let Ok(text) = std::fs::read_to_string(path) else { return false };
        let get = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.unwrap().to_owned()
        };
        self.endpoint = get("HANSHU_ENDPOINT");
        self.http_endpoint = get("HANSHU_HTTP_ENDPOINT");
        self.id = get("HANSHU_SECRET_ID");
        self.key = get("HANSHU_SECRET_KEY");
        true
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("server.log")
    }

    /// What the server logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Ends the server in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Tells the server to stop; returns its exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut server = self.server.take().unwrap();
        signal(server.id(), "TERM");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = server.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if until < Instant::now() {
                let _ = server.kill();
                panic!("the server does not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The command line against this server.
    pub(crate) fn hanshu(&self, args: &[&str]) -> Ran {
        self.hanshu_with(args, &[])
    }

    /// The same, with more variables.
    pub(crate) fn hanshu_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let deploys = args.first() == Some(&"deploy");
        let on_docker = self.flags.iter().any(|flag| flag == "docker");
        let _turn = (deploys && on_docker).then(image_turn);
        let output = Command::new(HANSHU)
            .args(args)
            .env("HANSHU_ENDPOINT", &self.endpoint)
            .env("HANSHU_SECRET_ID", &self.id)
            .env("HANSHU_SECRET_KEY", &self.key)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.into()
    }

    /// The command line, which must succeed; its standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.hanshu(args);
        assert_eq!(ran.code, 0, "{args:?}: {}\n{}\nserver: {}", ran.stdout, ran.stderr, self.log());
        ran.stdout
    }

    /// Deploys one function from these files.
    #[track_caller]
    pub(crate) fn deploy(&self, name: &str, settings: &str, files: &[(&str, &str)]) {
        let dir = folder(name, settings, files);
        self.ok(&["deploy", dir.path().to_str().unwrap()]);
    }

    /// A request to the API.
    pub(crate) fn api(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.endpoint);
        self.http.request(method, url).basic_auth(&self.id, Some(&self.key))
    }

    /// A request to the HTTP triggers.
    pub(crate) fn web(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.http_endpoint))
    }

    /// A synchronous call.
    pub(crate) async fn invoke(&self, name: &str, event: impl Into<reqwest::Body>) -> Answer {
        let path = format!("/v1/functions/{name}/invocations");
        send(self.api(Method::POST, &path).body(event)).await
    }

    /// A call that is queued; its request id.
    pub(crate) async fn accept(&self, name: &str, event: impl Into<reqwest::Body>) -> String {
        let path = format!("/v1/functions/{name}/invocations");
        let answer =
            send(self.api(Method::POST, &path).header("prefer", "respond-async").body(event)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.request_id
    }

    /// An invocation once it has ended.
    pub(crate) async fn end_of(&self, id: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let path = format!("/v1/invocations/{id}?wait=5");
            let now = send(self.api(Method::GET, &path)).await.json();
            if ["succeeded", "failed", "expired", "cancelled"]
                .contains(&now["state"].as_str().unwrap())
            {
                return now;
            }
            assert!(Instant::now() < until, "{now}");
        }
    }

    /// A function's log, as text, once `enough` says so.
    pub(crate) fn log_of(&self, name: &str, enough: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.ok(&["logs", name, "--since", "1h"]);
            if enough(&text) {
                return text;
            }
            assert!(Instant::now() < until, "the log never says it:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal(server.id(), "TERM");
            let until = Instant::now() + Duration::from_secs(20);
            while server.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Sends, and reads the whole answer.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (fault, request_id) = (header("x-fault"), header("x-request-id"));
    let status = response.status();
    let body = response.bytes().await.unwrap().to_vec();
    Answer { status, fault, request_id, body }
}

/// A folder with one function.
pub(crate) fn folder(name: &str, settings: &str, files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if text.starts_with("#!") {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let toml = format!("[functions.{name}]\n{settings}\n");
    std::fs::write(dir.path().join("hanshu.toml"), toml).unwrap();
    dir
}

/// A server without prewarmed sandboxes: its sandboxes are those of functions that were called.
#[allow(dead_code, reason = "for the stories; the hostile functions share this file")]
pub(crate) const NO_PREWARM_CELLS: (&str, &str) = ("HANSHU_POOL__PREWARMED_MIN", "0");

/// A server whose callers wait for a sandbox as long as a test does: on a busy machine its start takes
/// longer than the usual ten seconds.
const PATIENT: (&str, &str) = ("HANSHU_WAIT_TIMEOUT_MS", "60000");

/// Settings of a Python function.
pub(crate) const PYTHON: &str = "runtime = \"python\"\nhandler = \"index.main_handler\"\n";

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A service's URL for tests. On a developer's machine a missing one is said; in CI it fails.
pub(crate) fn service(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs {variable}: run `make test`");
        eprintln!("{variable} is not set: this story was NOT run");
    }
    url
}

/// Held while a deploy may build an image: other test programs run beside this one, and the one
/// that comes second finds the image instead of building it once more.
fn image_turn() -> File {
    let turn = File::create(std::env::temp_dir().join("hanshu-test-images")).unwrap();
    turn.lock().unwrap();
    turn
}

/// All of a reader, as text.
pub(crate) fn text_of(mut reader: impl std::io::Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

impl World {
    /// Waits for a server that was told to stop; its exit code.
    pub(crate) fn stop_wait(&mut self) -> i32 {
        let mut server = self.server.take().unwrap();
        server.wait().unwrap().code().unwrap_or(-1)
    }
}
