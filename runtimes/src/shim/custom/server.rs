//! The runtime API's routes, and the threads that serve them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::desk::{Current, Desk};
use super::http::{Body, Connection, Method, Reply, Request};
use crate::shim::answer::Answer;
use crate::shim::spawn_thread;
use crate::wire::status;

/// Connections at a time, each with a thread. A bootstrap needs one, or one for each `curl`.
const CONNECTIONS_MAX: usize = 32;
/// How often a waiting call looks whether its caller is still there.
const CALLER_CHECK: Duration = Duration::from_secs(1);

/// What `next` tells with every event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) memory_mb: u32,
    pub(super) timeout_ms: u32,
}

/// Serves on threads of its own until the shim ends.
pub(super) fn serve(listener: TcpListener, desk: Arc<Desk>, facts: Facts) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    spawn_thread("accept", move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => admit(stream, &desk, facts, &open),
                // No descriptor or memory is free: the function's own doing, which may pass.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    })?;
    Ok(())
}

/// Gives the connection a thread, or closes it where there are too many.
fn admit(stream: TcpStream, desk: &Arc<Desk>, facts: Facts, open: &Arc<AtomicUsize>) {
    if CONNECTIONS_MAX <= open.fetch_add(1, Ordering::Relaxed) {
        open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (desk, held) = (Arc::clone(desk), Arc::clone(open));
    let started = spawn_thread("connection", move || {
        // A connection that breaks is the caller's affair.
        let _ = converse(stream, &desk, facts);
        held.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(stream: TcpStream, desk: &Desk, facts: Facts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = Connection::new(stream);
    loop {
        let request = match connection.read_request()? {
            None => return Ok(()),
            Some(Err(bad)) => return connection.write(&Reply::closing(bad.status(), bad.reason())),
            Some(Ok(request)) => request,
        };
        let body = connection.read_body(&request)?;
        // What is left of a refused body is not looked for.
        let keeps_alive = request.keeps_alive && matches!(body, Body::Whole(_));
        match answer(&connection, &request, body, desk)? {
            None => return Ok(()),
            Some(Page::Plain(status, reason)) if keeps_alive => {
                connection.write(&Reply::plain(status, reason))?;
            }
            Some(Page::Plain(status, reason)) => {
                return connection.write(&Reply::closing(status, reason));
            }
            Some(Page::Event(current)) => {
                connection.write(&event_reply(&current, facts, keeps_alive))?;
                if !keeps_alive {
                    return Ok(());
                }
            }
        }
    }
}

/// What a call is answered with.
enum Page {
    Plain(u16, &'static str),
    Event(Arc<Current>),
}

/// Does what a call asks for. `None`: the caller has gone away while it waited.
fn answer(
    connection: &Connection,
    request: &Request,
    body: Body,
    desk: &Desk,
) -> io::Result<Option<Page>> {
    let allowed = match request.path.as_str() {
        "/runtime/invocation/next" => Method::Get,
        "/runtime/init/ready" | "/runtime/invocation/response" | "/runtime/invocation/error" => {
            Method::Post
        }
        _ => return Ok(Some(Page::Plain(404, "Not Found"))),
    };
    if request.method != allowed {
        return Ok(Some(Page::Plain(405, "Method Not Allowed")));
    }
    match request.path.as_str() {
        "/runtime/init/ready" => desk.ready(),
        "/runtime/invocation/next" => return wait_for_event(connection, desk),
        path => return Ok(Some(settle(path, body, desk))),
    }
    Ok(Some(Page::Plain(200, "OK")))
}

/// The long poll: there is no limit of time, but a caller who is gone is not waited for.
fn wait_for_event(connection: &Connection, desk: &Desk) -> io::Result<Option<Page>> {
    loop {
        if let Some(current) = desk.next(CALLER_CHECK) {
            return Ok(Some(Page::Event(current)));
        }
        if connection.caller_is_gone()? {
            return Ok(None);
        }
    }
}

fn settle(path: &str, body: Body, desk: &Desk) -> Page {
    match body {
        Body::Whole(bytes) if path.ends_with("/response") => {
            desk.settle(Answer::from_output(bytes));
        }
        Body::Whole(bytes) => {
            let message = String::from_utf8_lossy(&bytes).into_owned();
            desk.settle(Answer::failed(status::USER_ERROR, message));
        }
        Body::TooLarge => {
            desk.settle(Answer::too_large());
            return Page::Plain(413, "Content Too Large");
        }
        Body::Broken => return Page::Plain(400, "Bad Request"),
    }
    Page::Plain(200, "OK")
}

fn event_reply(current: &Current, facts: Facts, keeps_alive: bool) -> Reply<'_> {
    let headers = format!(
        "Content-Type: application/json\r\nrequest_id: {}\r\nmemory_limit_in_mb: {}\r\n\
         time_limit_in_ms: {}\r\n",
        current.request_id, facts.memory_mb, facts.timeout_ms
    );
    Reply { status: 200, reason: "OK", headers, body: &current.payload, keeps_alive }
}
