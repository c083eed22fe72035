//! Sending a request and reading its answer: addresses, authentication, errors.

use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::{Client, ClientAuth, ClientError, FunctionPath};
use crate::wire::ProblemBody;

impl FunctionPath<'_> {
    /// `/v1/functions/{name}`, then `rest`.
    pub(super) fn path(self, rest: &str) -> String {
        format!("/v1/functions/{}{rest}", path_segment(self.name))
    }
}

impl Client {
    /// A request to a path below the endpoint.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.endpoint));
        match &self.auth {
            ClientAuth::Key { id, secret } => request.basic_auth(id, Some(secret.expose())),
            ClientAuth::Token(token) => request.bearer_auth(token.expose()),
        }
    }

    /// A request about a function: `?namespace=` is added.
    pub(super) fn function_request(
        &self,
        method: Method,
        function: FunctionPath<'_>,
        rest: &str,
    ) -> RequestBuilder {
        self.request(method, &function.path(rest)).query(&[("namespace", function.namespace)])
    }

    /// Sends, whatever the answer's status.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends, and takes a refusal for an error.
    pub(super) async fn send_ok(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refused(response).await)
        }
    }

    /// Sends, and reads JSON.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send_ok(request).await?;
        let bytes = self.read_body(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
    }

    /// Reads the whole body.
    pub(super) async fn read_body(&self, response: Response) -> Result<Vec<u8>, ClientError> {
        response.bytes().await.map(Into::into).map_err(|error| self.unreachable(&error))
    }

    /// A refusal's problem document; without one, an error made from the status.
    pub(super) async fn refused(&self, response: Response) -> ClientError {
        let status = response.status();
        let bytes = match self.read_body(response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ProblemBody>(&bytes) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_) => ClientError::BadAnswer(format!(
                "{} answered {status}, not as a hanshu server does: is the endpoint right?",
                self.endpoint
            )),
        }
    }

    /// No connection, or it broke.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let endpoint = &self.endpoint;
        if error.is_timeout() && !error.is_connect() {
            let text = format!("the server at {endpoint} did not answer in time");
            return ClientError::Interrupted(text);
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        ClientError::Unreachable(format!("no server reached at {endpoint}: {cause}"))
    }
}

/// JSON that is not of the expected shape.
pub(super) fn unreadable(error: &serde_json::Error) -> ClientError {
    ClientError::BadAnswer(format!(
        "the server's answer cannot be read: {error} (is it of another version?)"
    ))
}

/// One segment of a path.
pub(super) fn path_segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
