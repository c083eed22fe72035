//! The HTTP server of the data plane: accepts connections and hands each request to its handler.
//!
//! No axum here: an invocation is read, run and answered on the connection's own task.

mod body;
mod client_io;
mod payload;
mod timer;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use body::Body;
/// The body of a request, as it comes from the connection.
pub use hyper::body::Incoming as RequestBody;
pub(crate) use payload::{PayloadError, read_payload};

use client_io::ClientIo;
use timer::ConnectionTimer;

/// After a failed `accept` (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a listener.
#[derive(Clone, Debug)]
pub struct HttpServerOptions {
    /// Connections at once; further ones wait in the system's backlog.
    pub connections_max: usize,
    /// How long a client may take for a request's head; also how long an idle connection is kept.
    pub header_read_timeout: Duration,
    /// Header lines of a request, at most.
    pub headers_max: usize,
    /// How long a client may leave an answer unread before it is given up.
    pub write_timeout: Duration,
}

impl Default for HttpServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            header_read_timeout: Duration::from_secs(60),
            headers_max: 100,
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// What handles the requests of a listener.
pub trait RequestHandler: Send + Sync + 'static {
    /// Answers one request of the client at `peer`. Dropped in the middle if the client leaves.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves `listener` on the runtime that polls this, until `stop`. Connections are tasks of
/// `tasks`: once that is empty, the last answer has been sent.
pub async fn serve<A: RequestHandler>(
    listener: TcpListener,
    answer: Arc<A>,
    options: HttpServerOptions,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(options.connections_max));
    while let Some(Ok(permit)) = stop.run_until_cancelled(permits.clone().acquire_owned()).await {
        match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, peer))) => {
                let connection =
                    serve_connection((stream, peer), answer.clone(), options.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Some(Err(error)) => {
                warn!(%error, "Could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<A: RequestHandler>(
    (stream, peer): (TcpStream, SocketAddr),
    answer: Arc<A>,
    options: HttpServerOptions,
    stop: CancellationToken,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // A connection without a first byte is closed at the stop: hyper would wait for a request.
    let spoken = tokio::time::timeout(options.header_read_timeout, stream.readable());
    if !matches!(stop.run_until_cancelled(spoken).await, Some(Ok(Ok(())))) {
        return;
    }
    let io = TokioIo::new(ClientIo::new(stream, options.write_timeout));
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(ConnectionTimer::default())
        .header_read_timeout(options.header_read_timeout)
        .max_headers(options.headers_max)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "A connection ended early");
    }
}
