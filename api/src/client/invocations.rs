//! Invocations and logs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;

use super::transport::{path_segment, unreadable};
use super::{Client, ClientError, FunctionPath};
use crate::wire::{InvocationAccepted, InvocationList, InvocationView, LogPageView};

/// An event for a function.
#[derive(Clone, Debug)]
pub struct InvokeRequest<'a> {
    /// The function that takes the event.
    pub function: FunctionPath<'a>,
    /// `$LATEST` or a version's number; `$LATEST` if absent.
    pub qualifier: Option<&'a str>,
    /// The event: JSON.
    pub payload: Bytes,
}

/// The answer to a synchronous invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokeAnswer {
    /// Whether the function itself failed: `body` is then a failure.
    pub failed: bool,
    /// What the function returned, or its failure, as JSON.
    pub body: Bytes,
    /// The end of the log, if it was asked for and there is one.
    pub log_tail: Option<Vec<u8>>,
}

/// What a cancellation did.
#[derive(Debug)]
pub enum Cancellation {
    /// The invocation waited, and has ended as cancelled.
    Ended(Box<InvocationView>),
    /// The invocation runs, and has been told to end.
    Requested,
}

/// Chooses lines of a function's log. The values are checked by the server, not here.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFilter {
    /// Written at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// If given, only lines of this invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Entries of the page, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seconds to wait for lines if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
}

/// Chooses ended invocations. The values are checked by the server, not here.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InvocationFilter {
    /// Where the functions live; `default` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// If given, only invocations of this function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Of one of its triggers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Of these states only, with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Ended at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Ended before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A text that name, id or error must contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Invocations of the page, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Client {
    /// Runs a function and waits for its end. `log_tail` asks for the end of its log, too.
    ///
    /// # Errors
    /// See [`ClientError`]. A failure of the function itself is an answer, no error.
    pub async fn invoke(
        &self,
        invocation: InvokeRequest<'_>,
        log_tail: bool,
    ) -> Result<InvokeAnswer, ClientError> {
        let mut request = self.invoke_request(invocation);
        if log_tail {
            request = request.header("x-hanshu-log", "tail");
        }
        let response = self.send(request).await?;
        let failed = match (response.status().is_success(), is_function_failure(&response)) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => return Err(self.refused(response).await),
        };
        let tail = response.headers().get("x-hanshu-log-result");
        let log_tail = tail.and_then(|tail| BASE64.decode(tail.as_bytes()).ok());
        let body = self.read_body(response).await?.into();
        Ok(InvokeAnswer { failed, body, log_tail })
    }

    /// Queues an event: returns as soon as it is kept.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn invoke_async(
        &self,
        invocation: InvokeRequest<'_>,
    ) -> Result<InvocationAccepted, ClientError> {
        let request = self.invoke_request(invocation).header("prefer", "respond-async");
        self.send_json(request).await
    }

    fn invoke_request(&self, invocation: InvokeRequest<'_>) -> RequestBuilder {
        let InvokeRequest { function, qualifier, payload } = invocation;
        let request = self
            .function_request(Method::POST, function, "/invocations")
            .header("content-type", "application/json")
            .body(payload);
        match qualifier {
            Some(qualifier) => request.query(&[("qualifier", qualifier)]),
            None => request,
        }
    }

    /// An invocation and its state; if it has not ended, waits up to `wait_s` seconds for its
    /// end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn show_invocation(
        &self,
        id: &str,
        wait_s: u64,
    ) -> Result<InvocationView, ClientError> {
        let path = format!("/v1/invocations/{}", path_segment(id));
        self.send_json(self.request(Method::GET, &path).query(&[("wait", wait_s)])).await
    }

    /// A page of the ended asynchronous invocations.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_invocations(
        &self,
        filter: &InvocationFilter,
    ) -> Result<InvocationList, ClientError> {
        self.send_json(self.request(Method::GET, "/v1/invocations").query(filter)).await
    }

    /// Cancels an invocation. Does not wait for the end of one that runs, and may be repeated until
    /// it is refused because the invocation has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel_invocation(&self, id: &str) -> Result<Cancellation, ClientError> {
        let path = format!("/v1/invocations/{}/cancel", path_segment(id));
        let response = self.send_ok(self.request(Method::POST, &path)).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(Cancellation::Requested);
        }
        let bytes = self.read_body(response).await?;
        let view = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        Ok(Cancellation::Ended(view))
    }

    /// Queues the event of an ended invocation once more, with `input` if that is given.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rerun_invocation(
        &self,
        id: &str,
        input: Option<Bytes>,
    ) -> Result<InvocationAccepted, ClientError> {
        let path = format!("/v1/invocations/{}/rerun", path_segment(id));
        let request = self.request(Method::POST, &path).header("content-type", "application/json");
        self.send_json(request.body(input.unwrap_or_default())).await
    }

    /// A page of a function's log.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_logs(
        &self,
        function: FunctionPath<'_>,
        filter: &LogFilter,
    ) -> Result<LogPageView, ClientError> {
        self.send_json(self.function_request(Method::GET, function, "/logs").query(filter)).await
    }
}

/// Whether an answer to an invocation is the function's own failure rather than a refusal.
fn is_function_failure(response: &Response) -> bool {
    response.headers().get("x-fault").is_some_and(|fault| fault == "function")
}
