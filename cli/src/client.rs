//! The native API, over HTTP.

use std::time::Duration;

use hanshu_gateway::wire::ProblemBody;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::settings::Settings;

/// How long to wait for a server to take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long any answer may take: a function's longest run, its start, and the line before it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1_500);

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    settings: Settings,
}

impl Client {
    /// Nothing is sent yet.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("hanshu/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|error| Error::Usage(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, settings })
    }

    /// Where and as whom.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A request to a path below the endpoint that knows no namespace.
    pub(crate) fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.settings.endpoint))
            .basic_auth(&self.settings.secret_id, Some(self.settings.secret_key.expose()))
    }

    /// A request to a path below the endpoint, `?namespace=` added.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_in(method, path, self.settings.namespace())
    }

    /// The same in another namespace than the settings'.
    pub(crate) fn request_in(&self, method: Method, path: &str, namespace: &str) -> RequestBuilder {
        self.plain(method, path).query(&[("namespace", namespace)])
    }

    /// Sends, whatever the answer's status.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends, and takes a refusal for an error.
    pub(crate) async fn accepted(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refused(response).await)
        }
    }

    /// Sends, and reads JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let response = self.accepted(request).await?;
        let bytes = self.body(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::Answer(format!(
                "the server's answer cannot be read: {error} (is it of another version?)"
            ))
        })
    }

    /// The whole body.
    pub(crate) async fn body(&self, response: Response) -> Result<Vec<u8>, Error> {
        response.bytes().await.map(Into::into).map_err(|error| self.unreachable(&error))
    }

    /// A refusal's problem document; else what can be said without one.
    pub(crate) async fn refused(&self, response: Response) -> Error {
        let status = response.status();
        let bytes = match self.body(response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ProblemBody>(&bytes) {
            Ok(problem) => Error::Refused(Box::new(problem)),
            Err(_) => Error::Answer(format!(
                "{} answered {status}, not as a hanshu server does: is the endpoint right?",
                self.settings.endpoint
            )),
        }
    }

    /// No connection, or it broke.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Error {
        let endpoint = &self.settings.endpoint;
        if error.is_timeout() && !error.is_connect() {
            return Error::Unreachable(format!("the server at {endpoint} did not answer in time"));
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Error::Unreachable(format!(
            "no server reached at {endpoint}: {cause}\nhint: start one with `hanshu serve`, or say another with --endpoint"
        ))
    }
}

/// Whether an answer to an invocation is the function's own failure rather than a refusal.
pub(crate) fn is_function_failure(response: &Response) -> bool {
    let fault = response.headers().get("x-fault").and_then(|value| value.to_str().ok());
    fault == Some("function") && response.status() != StatusCode::OK
}

/// One part of a path.
pub(crate) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
