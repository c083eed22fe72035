//! Functions, versions, triggers, packages, and the server itself.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use hanshu_core::Digest;
use reqwest::{Method, Response, StatusCode};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::transport::{path_segment, unreadable};
use super::{Client, ClientError, FunctionPath};
use crate::wire::{
    DeployFunction, DeployLine, DeployedFunction, FunctionDetail, FunctionList, Health, QueueList,
    TriggerChange, TriggerDetail, TriggerFired, TriggerList, VersionView,
};

/// Longest line of a deploy's answer.
const LINE_BYTES_MAX: usize = 1 << 20;

impl Client {
    /// The functions of a namespace, by name.
    ///
    /// # Errors
    /// See [`ClientError`], as for every method of the client.
    pub async fn list_functions(&self, namespace: &str) -> Result<FunctionList, ClientError> {
        let request = self.request(Method::GET, "/v1/functions");
        self.send_json(request.query(&[("namespace", namespace)])).await
    }

    /// A function with all that belongs to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn show_function(
        &self,
        function: FunctionPath<'_>,
    ) -> Result<FunctionDetail, ClientError> {
        self.send_json(self.function_request(Method::GET, function, "")).await
    }

    /// Makes code and configuration the function's `$LATEST`. `on_progress` gets a line of text
    /// for each step that the server reports.
    ///
    /// # Errors
    /// See [`ClientError`]. A connection that breaks in the middle leaves open whether the deploy
    /// is done.
    pub async fn deploy(
        &self,
        function: FunctionPath<'_>,
        wanted: &DeployFunction,
        on_progress: impl FnMut(&str),
    ) -> Result<DeployedFunction, ClientError> {
        let request = self
            .function_request(Method::PUT, function, "")
            .header("accept", "application/x-ndjson")
            .json(wanted);
        let response = self.send_ok(request).await?;
        self.follow_deploy(response, on_progress).await
    }

    /// Reads progress until the last line.
    async fn follow_deploy(
        &self,
        response: Response,
        mut on_progress: impl FnMut(&str),
    ) -> Result<DeployedFunction, ClientError> {
        let pieces = response.bytes_stream().map_err(std::io::Error::other);
        let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        let mut lines = FramedRead::new(StreamReader::new(pieces), codec);
        loop {
            let line = match lines.try_next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Err(cut_off()),
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    return Err(ClientError::BadAnswer("the server's answer has no end".into()));
                }
                Err(LinesCodecError::Io(error)) => return Err(self.broken(&error)),
            };
            // Without progress to report, the answer is the deployed function itself.
            let parsed = serde_json::from_str::<DeployLine>(&line)
                .or_else(|_| serde_json::from_str(&line).map(DeployLine::Deployed));
            match parsed.map_err(|error| unreadable(&error))? {
                DeployLine::Progress(text) => on_progress(&text),
                DeployLine::Deployed(deployed) => return Ok(deployed),
                DeployLine::Problem(problem) => {
                    return Err(ClientError::Refused(Box::new(problem)));
                }
            }
        }
    }

    fn broken(&self, error: &std::io::Error) -> ClientError {
        let source = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
        source.map_or_else(cut_off, |error| self.unreachable(error))
    }

    /// Removes a function with its versions and triggers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_function(&self, function: FunctionPath<'_>) -> Result<(), ClientError> {
        self.send_ok(self.function_request(Method::DELETE, function, "")).await.map(drop)
    }

    /// Publishes `$LATEST` as the next version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn publish(&self, function: FunctionPath<'_>) -> Result<VersionView, ClientError> {
        self.send_json(self.function_request(Method::POST, function, "/versions")).await
    }

    /// A function's triggers, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_triggers(
        &self,
        function: FunctionPath<'_>,
    ) -> Result<TriggerList, ClientError> {
        self.send_json(self.function_request(Method::GET, function, "/triggers")).await
    }

    /// Switches a trigger on or off.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_trigger(
        &self,
        function: FunctionPath<'_>,
        trigger: &str,
        change: &TriggerChange,
    ) -> Result<TriggerDetail, ClientError> {
        let rest = format!("/triggers/{}", path_segment(trigger));
        self.send_json(self.function_request(Method::PATCH, function, &rest).json(change)).await
    }

    /// Queues a timer's event now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fire_trigger(
        &self,
        function: FunctionPath<'_>,
        trigger: &str,
    ) -> Result<TriggerFired, ClientError> {
        let rest = format!("/triggers/{}/fire", path_segment(trigger));
        self.send_json(self.function_request(Method::POST, function, &rest)).await
    }

    /// Whether the server has a package.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn has_package(&self, digest: &Digest) -> Result<bool, ClientError> {
        let response = self.send(self.request(Method::HEAD, &package_path(digest))).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // The answer to a HEAD has no body. Another request gets the reason.
            _ => self.send_ok(self.request(Method::GET, "/v1/functions")).await.map(|_| false),
        }
    }

    /// Sends a package: a zip whose SHA-256 is the digest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_package(&self, digest: &Digest, zip: Bytes) -> Result<(), ClientError> {
        let request = self.request(Method::PUT, &package_path(digest));
        self.send_ok(request.body(zip)).await.map(drop)
    }

    /// All queues that hold anything.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_queues(&self) -> Result<QueueList, ClientError> {
        self.send_json(self.request(Method::GET, "/v1/queues")).await
    }

    /// Whether a server answers, and of which version it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.send_json(self.request(Method::GET, "/healthz")).await
    }
}

fn package_path(digest: &Digest) -> String {
    format!("/v1/packages/{digest}")
}

fn cut_off() -> ClientError {
    ClientError::Interrupted(
        "the server hung up in the middle of the deploy; it may be done or not: deploy again"
            .into(),
    )
}
