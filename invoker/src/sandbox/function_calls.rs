//! Serves the calls of a sandbox's function: HTTP on the socket `calls.sock` of its run folder, whose
//! other end is the shim's endpoint (PROTOCOL.md, "Calls of functions").
//!
//! The socket is in a folder that only this sandbox sees, so that it says which function calls.

use std::convert::Infallible;
use std::fmt;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::FunctionCalls;
use hanshu_core::{FunctionCaller, FunctionId, PAYLOAD_BYTES_MAX, RequestId, lock};
use hanshu_runtimes::wire::CALLS_MAX;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::task::AbortOnDropHandle;

use crate::tasks::BackgroundTasks;

/// Calls of all sandboxes of a node that are answered at a time; more wait.
pub(crate) const NODE_CALLS_MAX: usize = 1_024;
/// How long a sandbox may take to send a request's head, and its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// After a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the calls of a node's functions.
#[derive(Clone)]
pub(crate) struct FunctionCallPort {
    pub(crate) calls: Arc<dyn FunctionCalls>,
    /// Limits the calls of the node to [`NODE_CALLS_MAX`].
    pub(crate) slots: Arc<Semaphore>,
    /// Each sandbox's calls are served by a task of it.
    pub(crate) tasks: BackgroundTasks,
}

/// Serves one sandbox's calls until it is dropped or stopped.
#[derive(Debug)]
pub(crate) struct FunctionCallServer {
    caller: Arc<CallerIdentity>,
    serving: AbortOnDropHandle<()>,
}

/// Whose calls they are.
#[derive(Debug, Default)]
struct CallerIdentity {
    /// Unknown in a prewarmed sandbox that has no function yet.
    function: OnceLock<FunctionId>,
    /// The sandbox's newest event, with its depth. It stays when the event has ended, for calls that
    /// the function makes after its answer.
    event: Mutex<Option<(RequestId, u8)>>,
}

impl FunctionCallPort {
    pub(crate) fn new(calls: Arc<dyn FunctionCalls>, tasks: BackgroundTasks) -> Self {
        Self { calls, slots: Arc::new(Semaphore::new(NODE_CALLS_MAX)), tasks }
    }
}

impl fmt::Debug for FunctionCallPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCallPort").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl FunctionCallServer {
    /// Serves the calls that come to `listener`.
    ///
    /// # Errors
    /// The listener cannot be registered with the current runtime.
    pub(crate) fn start(listener: StdListener, port: FunctionCallPort) -> std::io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        let caller = Arc::new(CallerIdentity::default());
        let tasks = port.tasks.clone();
        let serving = tasks.spawn_uncounted(serve(listener, port, Arc::clone(&caller)));
        Ok(Self { caller, serving: AbortOnDropHandle::new(serving) })
    }

    /// The sandbox is this function's from now on.
    pub(crate) fn set_function(&self, function: &FunctionId) {
        // A sandbox is given one function, once.
        let _ = self.caller.function.set(function.clone());
    }

    /// Calls are this event's from now on.
    pub(crate) fn set_event(&self, request_id: RequestId, depth: u8) {
        *lock(&self.caller.event) = Some((request_id, depth));
    }

    /// Answers nothing any more. Functions that were called run on.
    pub(crate) fn stop(&self) {
        self.serving.abort();
    }
}

impl CallerIdentity {
    fn caller(&self) -> Option<FunctionCaller> {
        let function = self.function.get()?.clone();
        let (request_id, depth) = (*lock(&self.event))?;
        Some(FunctionCaller { function, request_id, depth })
    }
}

async fn serve(listener: UnixListener, port: FunctionCallPort, caller: Arc<CallerIdentity>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        while CALLS_MAX <= connections.len() {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, port.clone(), Arc::clone(&caller)));
                }
                Err(error) => {
                    tracing::warn!(%error, "Could not accept a call of a function");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: UnixStream, port: FunctionCallPort, caller: Arc<CallerIdentity>) {
    // The semaphore is never closed.
    let _slot = port.slots.acquire().await;
    let calls = &port.calls;
    let caller = &caller;
    let answer = service_fn(move |request| async move {
        Ok::<_, Infallible>(respond(calls.as_ref(), caller, request).await.map(Full::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "A connection for a function's call ended early");
    }
}

async fn respond(
    calls: &dyn FunctionCalls,
    caller: &CallerIdentity,
    request: Request<Incoming>,
) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    let body = time::timeout(READ_TIMEOUT, Limited::new(body, PAYLOAD_BYTES_MAX).collect()).await;
    match body {
        Ok(Ok(body)) => {
            let request = Request::from_parts(head, body.to_bytes());
            calls.respond(caller.caller(), request).await
        }
        // The shim forwards whole bodies within the limit: this is a function that connects by itself.
        Ok(Err(_)) => status(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => status(StatusCode::REQUEST_TIMEOUT),
    }
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
