//! The adapter *go*: functions built on scf-go-lib or on aws-lambda-go, which serve Go's `net/rpc`
//! (scf.md §6.6).

mod decode;
mod encode;
mod messages;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod rpc;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::messages::{Deadline, InvokeRequest, Reply};
use self::rpc::{Client, RpcError};
use super::answer::{Answer, clipped};
use super::link::{Event, Link, Then};
use super::processes::Launch;
use super::watch::Sandbox;
use crate::wire::{Failure, Init, InvokeHead, status};

/// How often the function is tried until it listens.
const CONNECT_INTERVAL: Duration = Duration::from_millis(2);
/// How long a process whose connection has broken may take to be dead. Then its end is the answer.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// Serves events until the invoker is gone, or the function's process is.
pub(super) fn serve(sandbox: &Arc<Sandbox>) -> io::Result<()> {
    let (mut link, init) = Link::connect(&sandbox.dir)?;
    if let Err(failure) = start(sandbox, &init) {
        return link.refuse(&failure);
    }
    let mut client = match reach(sandbox, &init) {
        Ok(Some(client)) => client,
        Ok(None) => return link.wait_for_end(),
        Err(failure) => return link.refuse(&failure),
    };
    link.ready()?;
    let facts = Facts::new(sandbox, &init);
    while let Some(event) = link.next()? {
        let Event { name, head, payload } = event;
        // The deadline is the invoker's, and it ends this process.
        let replied = client.invoke(&facts.request(&head), payload);
        let Some((answer, then)) = answer_of(sandbox, replied) else {
            return link.wait_for_end();
        };
        link.answer(name, &answer, then)?;
    }
    Ok(())
}

/// Starts the function's program.
fn start(sandbox: &Sandbox, init: &Init) -> Result<(), Failure> {
    let program = sandbox.start.argv.first().map_or("", String::as_str);
    let name = &init.handler;
    let refused = |why: String| {
        Err(Failure::new(status::HANDLER_NOT_FOUND, format!("the program `{name}` {why}")))
    };
    match fs::metadata(Path::new(&init.cwd).join(program)) {
        Err(_) => return refused("does not exist".to_owned()),
        Ok(found) if !found.is_file() => return refused("is no file".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            return refused("is not executable (`chmod +x` it)".to_owned());
        }
        Ok(_) => {}
    }
    let launch = Launch {
        argv: &sandbox.start.argv,
        env: &sandbox.start.env,
        more_env: &[("_LAMBDA_SERVER_PORT", &init.port.to_string())],
        cwd: &init.cwd,
    };
    let started = sandbox.processes.start_runtime(&launch);
    started.or_else(|error| refused(format!("cannot be started: {error}")))
}

/// Connects as soon as the function listens, and makes sure that it answers. `None` when its process
/// has ended, which is told on the other connection.
fn reach(sandbox: &Sandbox, init: &Init) -> Result<Option<Client>, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, init.port));
    let until = Instant::now() + Duration::from_millis(u64::from(init.init_timeout_ms));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!(
                "the function did not answer on port {} within {} ms",
                init.port, init.init_timeout_ms
            );
            return Err(Failure::new(status::INIT_TIMED_OUT, message));
        }
        match ping(&address, left) {
            Ok(client) => return Ok(Some(client)),
            Err(RpcError::Broken(what) | RpcError::Refused(what)) => return Err(broken(&what)),
            Err(RpcError::TooLarge | RpcError::Io(_)) => {}
        }
        if sandbox.processes.runtime_ends_within(CONNECT_INTERVAL) {
            return Ok(None);
        }
    }
}

fn ping(address: &SocketAddr, patience: Duration) -> Result<Client, RpcError> {
    let stream = TcpStream::connect_timeout(address, patience)?;
    if stream.local_addr()? == stream.peer_addr()? {
        // On loopback a connection can come to itself while nobody listens.
        return Err(io::Error::from(ErrorKind::ConnectionRefused).into());
    }
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut client = Client::new(stream);
    client.ping()?;
    client.stream().set_read_timeout(None)?;
    Ok(client)
}

fn broken(what: &str) -> Failure {
    let message = format!("the function does not speak Go's RPC as expected: {what}");
    Failure::new(status::CODE_ERROR, clipped(message))
}

/// What the invoker is told; `None` when the process has ended, which is told elsewhere.
fn answer_of(sandbox: &Sandbox, replied: Result<Reply, RpcError>) -> Option<(Answer, Then)> {
    Some(match replied {
        Ok(Reply { error: None, payload }) => (Answer::from_output(payload), Then::Continue),
        Ok(Reply { error: Some(error), .. }) => {
            let then = if error.should_exit { Then::Last } else { Then::Continue };
            (Answer::Failed(error.into_failure()), then)
        }
        Err(RpcError::TooLarge) => (Answer::too_large(), Then::Continue),
        Err(RpcError::Refused(what)) => (Answer::Failed(broken(&what)), Then::Continue),
        Err(RpcError::Broken(what)) => (Answer::Failed(broken(&what)), Then::Last),
        Err(RpcError::Io(_)) if sandbox.processes.runtime_ends_within(END_PATIENCE) => return None,
        Err(RpcError::Io(error)) => {
            (Answer::Failed(broken(&format!("it closed the connection ({error})"))), Then::Last)
        }
    })
}

/// What every event's request says alike.
#[derive(Debug)]
struct Facts<'a> {
    init: &'a Init,
    /// A JSON object of strings, which the library sets before each event.
    environment: String,
    env: &'a BTreeMap<String, String>,
}

impl<'a> Facts<'a> {
    fn new(sandbox: &'a Sandbox, init: &'a Init) -> Self {
        let environment = serde_json::to_string(&init.user_env).unwrap_or_default();
        Self { init, environment, env: &sandbox.start.env }
    }

    fn request<'r>(&'r self, head: &'r InvokeHead) -> InvokeRequest<'r> {
        let variable = |name: &str| self.env.get(name).map_or("", String::as_str);
        InvokeRequest {
            request_id: head.request_id(),
            deadline: deadline(head.remaining_ms),
            namespace: &self.init.namespace,
            function_name: &self.init.function_name,
            function_version: &self.init.function_version,
            memory_limit_in_mb: self.init.memory_mb,
            time_limit_in_ms: self.init.timeout_ms,
            environment: &self.environment,
            region: variable("TENCENTCLOUD_REGION"),
            app_id: variable("TENCENTCLOUD_APPID"),
            uin: variable("TENCENTCLOUD_UIN"),
        }
    }
}

/// Go's libraries take the deadline as a time of day.
fn deadline(remaining_ms: u32) -> Deadline {
    #[expect(clippy::disallowed_methods, reason = "the shim has no clock port; the kernel's is it")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now + Duration::from_millis(u64::from(remaining_ms));
    let seconds = i64::try_from(then.as_secs()).unwrap_or(i64::MAX);
    Deadline { seconds, nanos: i64::from(then.subsec_nanos()) }
}
