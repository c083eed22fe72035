//! One kept connection, for what is timed call by call. Load is made by wrk and oha.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::wrk;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
    host: String,
    _connection: AbortOnDropHandle<()>,
}

/// An answer, and how long it took from the first byte sent to the last received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

impl Answer {
    /// # Errors
    /// Where it was not a success.
    pub(crate) fn fine(self) -> anyhow::Result<Self> {
        ensure!(
            self.status.is_success(),
            "answered with {}: {}",
            self.status,
            String::from_utf8_lossy(self.body.get(..500).unwrap_or(&self.body))
        );
        Ok(self)
    }

    pub(crate) fn took_ms(&self) -> f64 {
        self.took.as_secs_f64() * 1e3
    }
}

impl Client {
    /// `address` is `host:port`; `authorization` goes with every request.
    ///
    /// # Errors
    /// Where nobody listens.
    pub(crate) async fn connect(address: &str, authorization: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context(address.to_owned())?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = TaskTracker::new().spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            authorization: authorization.into(),
            host: address.into(),
            _connection: AbortOnDropHandle::new(driver),
        })
    }

    /// # Errors
    /// Where the connection breaks, or no answer comes within `PATIENCE`.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            self.sender.ready().await?;
            let begun = Instant::now();
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let took = begun.elapsed();
            anyhow::Ok(Answer { status: head.status, body, took })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{path}: no answer"))?
    }

    /// Calls a function of the default namespace.
    ///
    /// # Errors
    /// As of `send`.
    pub(crate) async fn invoke(&mut self, name: &str, event: &str) -> anyhow::Result<Answer> {
        let path = format!("/v1/functions/{name}/invocations");
        self.send(Method::POST, &path, &[], Bytes::copy_from_slice(event.as_bytes())).await
    }

    /// One call as wrk will make it, by a connection of its own: the cold start is over then.
    ///
    /// # Errors
    /// As of `send`, and where the answer is no success.
    pub(crate) async fn once(request: &wrk::Request) -> anyhow::Result<Answer> {
        let uri: http::Uri = request.url.parse()?;
        let address = uri.authority().context("no address")?.as_str();
        let named = |wanted| request.headers.iter().find(|(name, _)| *name == wanted);
        let authorization = named("authorization").map_or("none", |(_, value)| value);
        let mut client = Self::connect(address, authorization).await?;
        let others = request.headers.iter().filter(|(name, _)| name.starts_with("x-"));
        let headers: Vec<_> = others.map(|(name, value)| (*name, value.as_str())).collect();
        let body = Bytes::copy_from_slice(&request.body);
        client.send(Method::POST, uri.path(), &headers, body).await?.fine()
    }

    /// # Errors
    /// As of `send`, and where the answer is no success.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        Ok(self.send(Method::GET, path, &[], Bytes::new()).await?.fine()?.body)
    }
}
