//! `hanshu status` shows an invocation, and waits for its end.

use std::time::Duration;

use hanshu_core::InvocationState;
use tokio::time::Instant;

use crate::args::StatusArgs;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

/// The server is asked to wait at most so long at a time.
const WAIT_STEP: Duration = Duration::from_secs(20);

pub(super) async fn run(
    server: ServerConnection,
    args: &StatusArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let until = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0));
    let progress = printer.progress("not ended yet");
    let view = loop {
        let left = until.saturating_duration_since(Instant::now());
        let step_s = left.min(WAIT_STEP).as_secs();
        let view = server.client.show_invocation(&args.request_id, step_s).await?;
        if view.state.has_ended() || left.is_zero() {
            break view;
        }
        // A server that does not wait is not asked more than a few times a second.
        tokio::time::sleep(Duration::from_millis(100).min(left)).await;
    };
    drop(progress);
    // One shape for people and programs: it is what `GET /v1/invocations/{id}` answers.
    let json = serde_json::to_string_pretty(&view);
    printer.line(json.map_err(|error| Error::Answer(error.to_string()))?)?;
    Ok(match view.state {
        InvocationState::Succeeded => CommandStatus::Done,
        InvocationState::Failed | InvocationState::Expired | InvocationState::Cancelled => {
            CommandStatus::Failed
        }
        InvocationState::Queued | InvocationState::Running | InvocationState::Retrying => {
            CommandStatus::NotEnded
        }
    })
}
