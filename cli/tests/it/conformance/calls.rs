//! Calls of functions, and what the platform says of them afterwards.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::check::{End, Ended, Line};
use super::data::Case;
use super::functions::LISTENING_NEIGHBOUR;
use super::machine::{self, Listener};
use crate::world::{PATIENCE, World, send};

/// The longest wait for records and logs, which are written behind the answer.
const WRITTEN_WAIT: Duration = Duration::from_secs(30);
/// The code of a function whose time has run out.
const LATE: u16 = 433;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Calls functions of one server.
pub(super) struct Caller<'a> {
    pub(super) world: &'a World,
    pub(super) backend: &'a str,
    pub(super) listener: &'a Listener,
}

impl Caller<'_> {
    pub(super) fn server(&self) -> u32 {
        self.world.pid()
    }

    /// A case's call.
    pub(super) async fn case(&self, case: &Case, name: &str) -> Result<Ended, String> {
        let event = self.event(case).await?;
        if case.special.r#async {
            self.call_async(name, event).await
        } else {
            self.call(name, event).await
        }
    }

    /// The event's text, with this machine's addresses and folders in their places.
    async fn event(&self, case: &Case) -> Result<String, String> {
        if let Some(raw) = &case.special.raw_event {
            return Ok(raw.clone());
        }
        if let Some(bytes) = case.special.event_text_bytes {
            return Ok(format!("\"{}\"", "x".repeat(bytes - 2)));
        }
        let mut event = case.event.clone();
        for list in ["to", "paths"] {
            let Some(Value::Array(items)) = event.get_mut(list) else { continue };
            let mut filled = Vec::new();
            for item in items.iter().filter_map(Value::as_str) {
                filled.extend(self.filled(item).await?);
            }
            *items = filled.into_iter().map(Value::from).collect();
        }
        Ok(event.to_string())
    }

    async fn filled(&self, item: &str) -> Result<Vec<String>, String> {
        Ok(match item {
            "$HOST" => self.listener.addresses(),
            "$NEIGHBOURS" => {
                // It has to be up.
                self.call_patiently(LISTENING_NEIGHBOUR, "{}").await?;
                machine::neighbours(self.backend)
            }
            path => vec![path.replace("$DATA", &self.world.data.path().to_string_lossy())],
        })
    }

    /// A synchronous call.
    pub(super) async fn call(&self, name: &str, event: String) -> Result<Ended, String> {
        let path = format!("/v1/functions/{name}/invocations");
        let request = self.world.api(Method::POST, &path).body(event);
        let begun = Instant::now();
        let response = request.send().await.map_err(|error| format!("{name}: {error:?}"))?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (fault, request_id) = (header("x-fault"), header("x-request-id"));
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| format!("{name}: {error:?}"))?.to_vec();
        let took_ms = begun.elapsed().as_millis();
        let json = || serde_json::from_slice(&body).map_err(|error| format!("{error}: {body:?}"));
        let end = match (status, fault.as_str()) {
            (200, "none") => End::Returned(body),
            (500 | 504, "function") => End::Failed(json()?),
            (400.., "platform") => End::Refused(status, json()?),
            _ => return Err(format!("{name}: HTTP {status} with x-fault `{fault}`")),
        };
        Ok(Ended { request_id, took_ms, end })
    }

    /// A call that the case is not about. Where the time ran out for it, which it needs next to
    /// nothing of, the machine was busy: it is made again.
    pub(super) async fn call_patiently(&self, name: &str, event: &str) -> Result<Ended, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.call(name, event.to_owned()).await?;
            let is_late = matches!(&ended.end, End::Failed(body) if body["statusCode"] == LATE);
            if !is_late || until < Instant::now() {
                return Ok(ended);
            }
        }
    }

    /// A queued call, waited for.
    async fn call_async(&self, name: &str, event: String) -> Result<Ended, String> {
        let path = format!("/v1/functions/{name}/invocations");
        let request = self.world.api(Method::POST, &path).header("prefer", "respond-async");
        let begun = Instant::now();
        let answer = send(request.body(event)).await;
        let request_id = answer.request_id.clone();
        let end = if answer.status.as_u16() == 202 {
            let mut state = self.world.end_of(&request_id).await;
            match state["state"].as_str() {
                Some("succeeded") => End::Returned(state["result"].take().to_string().into()),
                _ => End::Failed(state["error"].take()),
            }
        } else {
            End::Refused(answer.status.as_u16(), answer.json())
        };
        Ok(Ended { request_id, took_ms: begun.elapsed().as_millis(), end })
    }

    /// Who the function's sandbox runs as.
    pub(super) async fn uid(&self, name: &str) -> Result<u32, String> {
        let ended = self.call_patiently(name, r#"{"do":"isolation"}"#).await?;
        let End::Returned(text) = &ended.end else { return Err(format!("{ended:?}")) };
        let found: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let uid = found["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok());
        uid.ok_or_else(|| format!("no uid in {found}"))
    }

    /// The log of an event that has ended, once it is all there.
    pub(super) async fn log(&self, name: &str, request_id: &str) -> Result<Vec<Line>, String> {
        let until = Instant::now() + WRITTEN_WAIT;
        loop {
            let lines: Vec<_> = self
                .lines(name, &[("requestId", request_id)])
                .await
                .iter()
                .map(|line| Line {
                    from_platform: line["from"] == "platform",
                    text: line["text"].as_str().unwrap_or_default().to_owned(),
                })
                .collect();
            let is_report = |line: &Line| line.text.starts_with("Report RequestId: ");
            if lines.last().is_some_and(|line| line.from_platform && is_report(line)) {
                return Ok(lines);
            }
            if until < Instant::now() {
                return Err(format!("the log of {request_id} is never whole: {lines:?}"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits for a line that belongs to no event.
    pub(super) async fn shown_as_late(&self, name: &str, text: &str) -> Result<(), String> {
        let until = Instant::now() + WRITTEN_WAIT;
        loop {
            let lines = self.lines(name, &[]).await;
            let is_it = |line: &Value| line["requestId"].is_null() && line["text"] == text;
            if lines.iter().any(is_it) {
                return Ok(());
            }
            if until < Instant::now() {
                return Err(format!("{text:?} is never shown as late"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn lines(&self, name: &str, query: &[(&str, &str)]) -> Vec<Value> {
        let path = format!("/v1/functions/{name}/logs?limit=10000");
        let mut page = send(self.world.api(Method::GET, &path).query(query)).await.json();
        match page["lines"].take() {
            Value::Array(lines) => lines,
            _ => panic!("{name}: {page}"),
        }
    }

    /// Whether a sandbox was started for that event.
    pub(super) async fn was_cold(&self, request_id: &str) -> Result<bool, String> {
        let until = Instant::now() + WRITTEN_WAIT;
        loop {
            let path = format!("/v1/invocations/{request_id}");
            let answer = send(self.world.api(Method::GET, &path)).await;
            if answer.status.is_success() {
                let state = answer.json();
                let attempts = state["attempts"].as_array();
                let cold = attempts.and_then(|all| all.last()?["cold"].as_bool());
                return cold.ok_or_else(|| format!("no attempt in {state}"));
            }
            if until < Instant::now() {
                return Err(format!("{request_id}: HTTP {}", answer.status));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
