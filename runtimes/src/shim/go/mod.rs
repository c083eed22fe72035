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

use self::messages::{InvokeReply, InvokeRequest, RpcDeadline};
use self::rpc::{RpcClient, RpcError};
use super::adapter_context::AdapterContext;
use super::invocation_response::{InvocationResponse, clipped};
use super::processes::LaunchSpec;
use super::runtime_connection::{AfterResponse, ReceivedEvent, RuntimeConnection};
use crate::wire::{InitMessage, InvokeHead, RuntimeFailure, status};

/// How often a connection is tried until the function listens.
const CONNECT_INTERVAL: Duration = Duration::from_millis(2);
/// How long to wait for the end of a process whose connection broke. If it ends, that is the answer.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// Serves events until the invoker or the function's process is gone.
pub(super) fn serve(sandbox: &Arc<AdapterContext>) -> io::Result<()> {
    let (mut connection, init) = RuntimeConnection::connect(&sandbox.dir)?;
    if let Err(failure) = start(sandbox, &init) {
        return connection.refuse(&failure);
    }
    let mut client = match connect(sandbox, &init) {
        Ok(Some(client)) => client,
        Ok(None) => return connection.wait_for_end(),
        Err(failure) => return connection.refuse(&failure),
    };
    connection.ready()?;
    let template = InvokeTemplate::new(sandbox, &init);
    while let Some(event) = connection.next()? {
        let ReceivedEvent { name, head, payload } = event;
        // No deadline here: the invoker has one and kills the sandbox.
        let replied = client.invoke(&template.request(&head), payload);
        let Some((response, then)) = response_of(sandbox, replied) else {
            return connection.wait_for_end();
        };
        connection.respond(name, &response, then)?;
    }
    Ok(())
}

/// Starts the function's program.
fn start(sandbox: &AdapterContext, init: &InitMessage) -> Result<(), RuntimeFailure> {
    let program = sandbox.start.argv.first().map_or("", String::as_str);
    let name = &init.handler;
    let refused = |why: String| {
        Err(RuntimeFailure::new(status::HANDLER_NOT_FOUND, format!("the program `{name}` {why}")))
    };
    match fs::metadata(Path::new(&init.cwd).join(program)) {
        Err(_) => return refused("does not exist".to_owned()),
        Ok(found) if !found.is_file() => return refused("is no file".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            return refused("is not executable (`chmod +x` it)".to_owned());
        }
        Ok(_) => {}
    }
    let spec = LaunchSpec {
        argv: &sandbox.start.argv,
        env: &sandbox.start.env,
        more_env: &[("_LAMBDA_SERVER_PORT", &init.port.to_string())],
        cwd: &init.cwd,
    };
    let started = sandbox.processes.start_runtime(&spec);
    started.or_else(|error| refused(format!("cannot be started: {error}")))
}

/// Connects as soon as the function listens and answers a ping. `None` when its process has ended,
/// which the supervisor reports.
fn connect(
    sandbox: &AdapterContext,
    init: &InitMessage,
) -> Result<Option<RpcClient>, RuntimeFailure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, init.port));
    let until = Instant::now() + Duration::from_millis(u64::from(init.init_timeout_ms));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!(
                "the function did not answer on port {} within {} ms",
                init.port, init.init_timeout_ms
            );
            return Err(RuntimeFailure::new(status::INIT_TIMED_OUT, message));
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

fn ping(address: &SocketAddr, patience: Duration) -> Result<RpcClient, RpcError> {
    let stream = TcpStream::connect_timeout(address, patience)?;
    if stream.local_addr()? == stream.peer_addr()? {
        // On loopback a socket can connect to itself while nobody listens.
        return Err(io::Error::from(ErrorKind::ConnectionRefused).into());
    }
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut client = RpcClient::new(stream);
    client.ping()?;
    client.stream().set_read_timeout(None)?;
    Ok(client)
}

fn broken(what: &str) -> RuntimeFailure {
    let message = format!("the function does not speak Go's RPC as expected: {what}");
    RuntimeFailure::new(status::CODE_ERROR, clipped(message))
}

/// The response to the invoker. `None` when the process has ended, which the supervisor reports.
fn response_of(
    sandbox: &AdapterContext,
    replied: Result<InvokeReply, RpcError>,
) -> Option<(InvocationResponse, AfterResponse)> {
    Some(match replied {
        Ok(InvokeReply { error: None, payload }) => {
            (InvocationResponse::from_output(payload), AfterResponse::Continue)
        }
        Ok(InvokeReply { error: Some(error), .. }) => {
            let then =
                if error.should_exit { AfterResponse::Last } else { AfterResponse::Continue };
            (InvocationResponse::Failed(error.into_failure()), then)
        }
        Err(RpcError::TooLarge) => (InvocationResponse::too_large(), AfterResponse::Continue),
        Err(RpcError::Refused(what)) => {
            (InvocationResponse::Failed(broken(&what)), AfterResponse::Continue)
        }
        Err(RpcError::Broken(what)) => {
            (InvocationResponse::Failed(broken(&what)), AfterResponse::Last)
        }
        Err(RpcError::Io(_)) if sandbox.processes.runtime_ends_within(END_PATIENCE) => return None,
        Err(RpcError::Io(error)) => (
            InvocationResponse::Failed(broken(&format!("it closed the connection ({error})"))),
            AfterResponse::Last,
        ),
    })
}

/// The parts of a request that are the same for every event.
#[derive(Debug)]
struct InvokeTemplate<'a> {
    init: &'a InitMessage,
    /// A JSON object of strings, which the library sets before each event.
    environment: String,
    env: &'a BTreeMap<String, String>,
}

impl<'a> InvokeTemplate<'a> {
    fn new(sandbox: &'a AdapterContext, init: &'a InitMessage) -> Self {
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

/// Go's libraries take the deadline as a point in time.
fn deadline(remaining_ms: u32) -> RpcDeadline {
    #[expect(clippy::disallowed_methods, reason = "the shim has no clock port; the kernel's is it")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now + Duration::from_millis(u64::from(remaining_ms));
    let seconds = i64::try_from(then.as_secs()).unwrap_or(i64::MAX);
    RpcDeadline { seconds, nanos: i64::from(then.subsec_nanos()) }
}
