//! The adapter *custom*: the HTTP runtime API of SCF's custom runtimes (scf.md §6.7).
//!
//! The function's `bootstrap` pulls its events from a small server in the shim.

mod desk;
mod http;
mod server;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::desk::{Current, Desk};
use super::link::{Link, Then};
use super::processes::Launch;
use super::watch::Sandbox;
use crate::wire::{Failure, Init, status};

/// The program that a custom runtime is.
const BOOTSTRAP: &str = "bootstrap";

/// Serves events until the invoker is gone.
pub(super) fn serve(sandbox: &Arc<Sandbox>) -> io::Result<()> {
    let (mut link, init) = Link::connect(&sandbox.dir)?;
    if let Err(failure) = check(&init) {
        return link.refuse(&failure);
    }
    let desk = Arc::new(Desk::default());
    if let Err(failure) = start(sandbox, &init, &desk) {
        return link.refuse(&failure);
    }
    let patience = Duration::from_millis(u64::from(init.init_timeout_ms));
    if !desk.wait_ready(patience) {
        let message = format!(
            "`{BOOTSTRAP}` did not call /runtime/init/ready within {} ms",
            init.init_timeout_ms
        );
        return link.refuse(&Failure::new(status::INIT_TIMED_OUT, message));
    }
    link.ready()?;
    while let Some(event) = link.next()? {
        let request_id = event.head.request_id().to_owned();
        desk.offer(Current { request_id, payload: event.payload });
        // The deadline is the invoker's, and it ends this process.
        let answer = desk.wait_answer();
        link.answer(event.name, &answer, Then::Continue)?;
    }
    Ok(())
}

/// Whether there is a `bootstrap` to start.
fn check(init: &Init) -> Result<(), Failure> {
    let refused = |why: &str| {
        Err(Failure::new(status::HANDLER_NOT_FOUND, format!("the file `{BOOTSTRAP}` {why}")))
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

/// Opens the server, and then starts the runtime that calls it.
fn start(sandbox: &Arc<Sandbox>, init: &Init, desk: &Arc<Desk>) -> Result<(), Failure> {
    let failed = |status: u16, what: &str, error: io::Error| {
        Failure::new(status, format!("{what}: {error}"))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, init.port))
        .map_err(|error| failed(status::CODE_ERROR, "the runtime API cannot listen", error))?;
    let port = listener.local_addr().map_or(init.port, |address| address.port());
    let facts = server::Facts { memory_mb: init.memory_mb, timeout_ms: init.timeout_ms };
    server::serve(listener, Arc::clone(desk), facts)
        .map_err(|error| failed(status::CODE_ERROR, "the runtime API cannot be served", error))?;
    let launch = Launch {
        argv: &sandbox.start.argv,
        env: &sandbox.start.env,
        more_env: &[
            ("SCF_RUNTIME_API", "127.0.0.1"),
            ("SCF_RUNTIME_API_PORT", &port.to_string()),
            ("_HANDLER", &init.handler),
        ],
        cwd: &init.cwd,
    };
    sandbox.processes.start_runtime(&launch).map_err(|error| {
        let what = "`bootstrap` cannot be started (is the program on its first line here?)";
        failed(status::HANDLER_NOT_FOUND, what, error)
    })
}
