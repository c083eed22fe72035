//! Serves the runtime API of custom runtimes over HTTP: its routes and its threads.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::rendezvous::{CurrentInvocation, Rendezvous};
use crate::shim::http::{HttpConnection, HttpMethod, HttpRequest, HttpResponse, RequestBody};
use crate::shim::invocation_response::InvocationResponse;
use crate::shim::spawn_thread;
use crate::wire::status;

/// The most connections at a time, each with a thread. A bootstrap needs one, or one per `curl`.
const CONNECTIONS_MAX: usize = 32;
/// How often a waiting call checks that its caller is still connected.
const CALLER_CHECK: Duration = Duration::from_secs(1);

/// The metadata that `next` returns with every event.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextEventMetadata {
    pub(super) memory_mb: u32,
    pub(super) timeout_ms: u32,
}

/// Serves on its own threads until the shim ends.
pub(super) fn serve(
    listener: TcpListener,
    rendezvous: Arc<Rendezvous>,
    metadata: NextEventMetadata,
) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    spawn_thread("accept", move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => admit(stream, &rendezvous, metadata, &open),
                // The function has used up descriptors or memory, which may be temporary.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    })?;
    Ok(())
}

/// Starts a thread for the connection, or closes it if there are too many.
fn admit(
    stream: TcpStream,
    rendezvous: &Arc<Rendezvous>,
    metadata: NextEventMetadata,
    open: &Arc<AtomicUsize>,
) {
    if CONNECTIONS_MAX <= open.fetch_add(1, Ordering::Relaxed) {
        open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (rendezvous, held) = (Arc::clone(rendezvous), Arc::clone(open));
    let started = spawn_thread("connection", move || {
        // The caller sees a broken connection itself.
        let _ = serve_connection(stream, &rendezvous, metadata);
        held.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_connection(
    stream: TcpStream,
    rendezvous: &Rendezvous,
    metadata: NextEventMetadata,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = HttpConnection::new(stream);
    loop {
        let request = match connection.read_request()? {
            None => return Ok(()),
            Some(Err(bad)) => {
                return connection.write(&HttpResponse::closing(bad.status(), bad.reason()));
            }
            Some(Ok(request)) => request,
        };
        let body = connection.read_body(&request)?;
        // The rest of a refused body is not read, so that the connection must be closed.
        let keeps_alive = request.keeps_alive && matches!(body, RequestBody::Whole(_));
        match route(&connection, &request, body, rendezvous)? {
            None => return Ok(()),
            Some(RouteResult::Plain(status, reason)) if keeps_alive => {
                connection.write(&HttpResponse::plain(status, reason))?;
            }
            Some(RouteResult::Plain(status, reason)) => {
                return connection.write(&HttpResponse::closing(status, reason));
            }
            Some(RouteResult::Event(current)) => {
                connection.write(&event_reply(&current, metadata, keeps_alive))?;
                if !keeps_alive {
                    return Ok(());
                }
            }
        }
    }
}

/// The response to a call.
enum RouteResult {
    Plain(u16, &'static str),
    Event(Arc<CurrentInvocation>),
}

/// Handles a call. `None` if the caller has disconnected while it waited.
fn route(
    connection: &HttpConnection,
    request: &HttpRequest,
    body: RequestBody,
    rendezvous: &Rendezvous,
) -> io::Result<Option<RouteResult>> {
    let allowed = match request.path() {
        "/runtime/invocation/next" => HttpMethod::Get,
        "/runtime/init/ready" | "/runtime/invocation/response" | "/runtime/invocation/error" => {
            HttpMethod::Post
        }
        _ => return Ok(Some(RouteResult::Plain(404, "Not Found"))),
    };
    if request.method != allowed {
        return Ok(Some(RouteResult::Plain(405, "Method Not Allowed")));
    }
    match request.path() {
        "/runtime/init/ready" => rendezvous.ready(),
        "/runtime/invocation/next" => return wait_for_event(connection, rendezvous),
        path => return Ok(Some(settle(path, body, rendezvous))),
    }
    Ok(Some(RouteResult::Plain(200, "OK")))
}

/// Long poll without a time limit; ends when the caller disconnects.
fn wait_for_event(
    connection: &HttpConnection,
    rendezvous: &Rendezvous,
) -> io::Result<Option<RouteResult>> {
    loop {
        if let Some(current) = rendezvous.next(CALLER_CHECK) {
            return Ok(Some(RouteResult::Event(current)));
        }
        if connection.caller_is_gone()? {
            return Ok(None);
        }
    }
}

fn settle(path: &str, body: RequestBody, rendezvous: &Rendezvous) -> RouteResult {
    match body {
        RequestBody::Whole(bytes) if path.ends_with("/response") => {
            rendezvous.settle(InvocationResponse::from_output(bytes));
        }
        RequestBody::Whole(bytes) => {
            let message = String::from_utf8_lossy(&bytes).into_owned();
            rendezvous.settle(InvocationResponse::failed(status::USER_ERROR, message));
        }
        RequestBody::TooLarge => {
            rendezvous.settle(InvocationResponse::too_large());
            return RouteResult::Plain(413, "Content Too Large");
        }
        RequestBody::Broken => return RouteResult::Plain(400, "Bad Request"),
    }
    RouteResult::Plain(200, "OK")
}

fn event_reply(
    current: &CurrentInvocation,
    metadata: NextEventMetadata,
    keeps_alive: bool,
) -> HttpResponse<'_> {
    let headers = format!(
        "Content-Type: application/json\r\nrequest_id: {}\r\nmemory_limit_in_mb: {}\r\n\
         time_limit_in_ms: {}\r\n",
        current.request_id, metadata.memory_mb, metadata.timeout_ms
    );
    HttpResponse { status: 200, reason: "OK", headers, body: &current.payload, keeps_alive }
}
