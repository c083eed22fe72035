//! The adapter *custom*: the HTTP runtime API of SCF's custom runtimes (scf.md §6.7).
//!
//! The function's `bootstrap` pulls its events from a small server in the shim.

mod rendezvous;

mod runtime_api;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::rendezvous::{CurrentInvocation, Rendezvous};
use super::adapter_context::AdapterContext;
use super::processes::LaunchSpec;
use super::runtime_connection::{AfterResponse, RuntimeConnection};
use crate::wire::{InitMessage, RuntimeFailure, status};

/// The program of a custom runtime.
const BOOTSTRAP: &str = "bootstrap";

/// Serves events until the invoker is gone.
pub(super) fn serve(sandbox: &Arc<AdapterContext>) -> io::Result<()> {
    let (mut connection, init) = RuntimeConnection::connect(&sandbox.dir)?;
    if let Err(failure) = check(&init) {
        return connection.refuse(&failure);
    }
    let rendezvous = Arc::new(Rendezvous::default());
    if let Err(failure) = start(sandbox, &init, &rendezvous) {
        return connection.refuse(&failure);
    }
    let patience = Duration::from_millis(u64::from(init.init_timeout_ms));
    if !rendezvous.wait_ready(patience) {
        let message = format!(
            "`{BOOTSTRAP}` did not call /runtime/init/ready within {} ms",
            init.init_timeout_ms
        );
        return connection.refuse(&RuntimeFailure::new(status::INIT_TIMED_OUT, message));
    }
    connection.ready()?;
    while let Some(event) = connection.next()? {
        let request_id = event.head.request_id().to_owned();
        rendezvous.offer(CurrentInvocation { request_id, payload: event.payload });
        // No deadline here: the invoker has one and kills the sandbox.
        let response = rendezvous.wait_response();
        connection.respond(event.name, &response, AfterResponse::Continue)?;
    }
    Ok(())
}

/// Checks that there is an executable `bootstrap`.
fn check(init: &InitMessage) -> Result<(), RuntimeFailure> {
    let refused = |why: &str| {
        Err(RuntimeFailure::new(status::HANDLER_NOT_FOUND, format!("the file `{BOOTSTRAP}` {why}")))
    };
    match fs::metadata(Path::new(&init.cwd).join(BOOTSTRAP)) {
        Err(_) => refused("does not exist"),
        Ok(found) if !found.is_file() => refused("is no file"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            refused("is not executable (`chmod +x` it)")
        }
        Ok(_) => Ok(()),
    }
}

/// Starts the HTTP server, then the runtime that calls it.
fn start(
    sandbox: &Arc<AdapterContext>,
    init: &InitMessage,
    rendezvous: &Arc<Rendezvous>,
) -> Result<(), RuntimeFailure> {
    let failed = |status: u16, what: &str, error: io::Error| {
        RuntimeFailure::new(status, format!("{what}: {error}"))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, init.port))
        .map_err(|error| failed(status::CODE_ERROR, "the runtime API cannot listen", error))?;
    let port = listener.local_addr().map_or(init.port, |address| address.port());
    let metadata =
        runtime_api::NextEventMetadata { memory_mb: init.memory_mb, timeout_ms: init.timeout_ms };
    runtime_api::serve(listener, Arc::clone(rendezvous), metadata)
        .map_err(|error| failed(status::CODE_ERROR, "the runtime API cannot be served", error))?;
    let spec = LaunchSpec {
        argv: &sandbox.start.argv,
        env: &sandbox.start.env,
        more_env: &[
            ("SCF_RUNTIME_API", "127.0.0.1"),
            ("SCF_RUNTIME_API_PORT", &port.to_string()),
            ("_HANDLER", &init.handler),
        ],
        cwd: &init.cwd,
    };
    sandbox.processes.start_runtime(&spec).map_err(|error| {
        let what = "`bootstrap` cannot be started (is the program on its first line here?)";
        failed(status::HANDLER_NOT_FOUND, what, error)
    })
}
