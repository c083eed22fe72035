//! Watches accepted events until the server says that they have ended.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{Client, World};
use crate::http::{Line, Pace, Trouble, request};

/// Between two rounds over all open events.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// Between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(5);
const ENDS: [&str; 3] = ["succeeded", "failed", "expired"];

/// What the server says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ended,
    Open,
    /// It does not know it.
    Lost,
    /// Nothing, now.
    Nothing(String),
}

/// Asks after one accepted event, and writes down its end.
pub(crate) async fn ask_state(world: &World, line: &mut Line, request_id: &str) -> Said {
    let authorization = world.access.authorization();
    let path = format!("/v1/invocations/{request_id}");
    let bytes = request("GET", &path, &[("authorization", &authorization)], b"");
    match line.exchange(&bytes, Pace::Quick).await {
        Ok(answer) if answer.status == 200 => {
            let view: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let state = view["state"].as_str().unwrap_or_default();
            if !ENDS.contains(&state) {
                return Said::Open;
            }
            world.ledger.said_ended(request_id, state);
            if state != "succeeded" {
                world.wrong(&format!("the accepted event {request_id} {state}: {view}"));
            }
            Said::Ended
        }
        Ok(answer) if answer.status == 404 => Said::Lost,
        Ok(answer) => Said::Nothing(answer.status.to_string()),
        Err(Trouble::Garbled(what)) => {
            world.wrong(&format!("the state of {request_id}: {what}"));
            Said::Nothing(what)
        }
        Err(trouble) => Said::Nothing(format!("{trouble:?}")),
    }
}

impl Client {
    /// Round after round over all accepted events that are not known to have ended.
    pub(super) async fn watch_states(self) {
        let mut line = Line::to(&self.world.access.api);
        let mut lost = std::collections::HashSet::new();
        while self.stop.run_until_cancelled(sleep(ROUND_PAUSE)).await.is_some() {
            for request_id in self.world.ledger.open() {
                if self.stop.is_cancelled() {
                    return;
                }
                let since = std::time::Instant::now();
                let said = ask_state(&self.world, &mut line, &request_id).await;
                match said {
                    Said::Lost if lost.insert(request_id.clone()) => {
                        self.world.wrong(&format!("the accepted event {request_id} is unknown"));
                    }
                    Said::Nothing(what) if !self.world.explained(since) => {
                        self.world.wrong(&format!("the state of {request_id}: {what}"));
                    }
                    Said::Ended | Said::Open | Said::Lost | Said::Nothing(_) => {}
                }
                sleep(ASK_PAUSE).await;
            }
        }
    }
}
