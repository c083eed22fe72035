//! `hanshu runs`, `hanshu rerun` and `hanshu cancel`.

use std::time::Duration;

use hanshu_api::wire::{InvocationList, InvocationView};
use hanshu_api::{Cancellation, ClientError, InvocationFilter};
use hanshu_core::InvocationState;
use tokio::time::Instant;

use super::invoke::event;
use super::logs::moment;
use crate::args::{CancelArgs, RerunArgs, RunsArgs};
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::{Printer, table};

/// Invocations asked for at once.
const PAGE: usize = 200;
/// Between two looks at an invocation that was told to end.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);
/// Characters of an error in the table.
const ERROR_CHARS_MAX: usize = 60;

/// Lists ended asynchronous invocations.
pub(super) async fn list(
    server: ServerConnection,
    args: &RunsArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let mut filter = InvocationFilter {
        namespace: Some(server.settings.namespace().to_owned()),
        function: args.name.clone(),
        trigger: args.trigger.clone(),
        state: args.state.clone(),
        from: args.since.as_deref().map(|text| moment("--since", text)).transpose()?,
        to: args.until.as_deref().map(|text| moment("--until", text)).transpose()?,
        q: args.grep.clone(),
        cursor: args.cursor.clone(),
        limit: None,
    };
    let mut all = InvocationList { invocations: Vec::new(), next: None, searched_to: None };
    loop {
        filter.limit = Some(PAGE.min(args.limit - all.invocations.len()));
        let page = server.client.list_invocations(&filter).await?;
        all.invocations.extend(page.invocations);
        (all.next, all.searched_to) = (page.next, page.searched_to);
        let is_full = args.limit <= all.invocations.len();
        if is_full || all.searched_to.is_some() || all.next.is_none() {
            break;
        }
        filter.cursor.clone_from(&all.next);
    }
    printer.show(&all, |list| {
        let rows: Vec<_> = list.invocations.iter().map(row).collect();
        table(["ENDED", "FUNCTION", "TRIGGER", "STATE", "ATTEMPTS", "ID", "ERROR"], &rows)
    })?;
    if let Some(to) = all.searched_to {
        printer.note(format!("The search stopped at events that ended at {to}."));
    }
    if let Some(next) = all.next {
        printer.note(format!("There may be more: continue with --cursor {next}."));
    }
    Ok(CommandStatus::Done)
}

fn row(run: &InvocationView) -> [String; 7] {
    let trigger = run.trigger.as_ref().map_or_else(|| "-".into(), |by| by.name.to_string());
    let error = run.error.as_ref().map_or("", |error| &error.error_message);
    let error = error.lines().next().unwrap_or_default();
    [
        run.ended_at.map_or_else(|| "-".into(), |at| format!("{at:.0}")),
        run.function.to_string(),
        trigger,
        run.state.as_str().into(),
        run.attempts.len().to_string(),
        run.request_id.to_string(),
        error.chars().take(ERROR_CHARS_MAX).collect(),
    ]
}

/// Cancels an invocation and waits for its end.
pub(super) async fn cancel(
    server: ServerConnection,
    args: &CancelArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let id = &args.request_id;
    let view = match server.client.cancel_invocation(id).await? {
        Cancellation::Ended(view) => *view,
        Cancellation::Requested => {
            let progress = printer.progress("told to end; not ended yet");
            let ended = end_of_cancelled(&server, id, Duration::from_secs(args.wait)).await?;
            drop(progress);
            let Some(view) = ended else {
                printer.note(format!("{id} was told to end and has not ended yet."));
                printer.note(format!("hint: `hanshu status {id}` shows its state"));
                return Ok(CommandStatus::NotEnded);
            };
            view
        }
    };
    printer.show(&view, |view| format!("{} {}", view.state.as_str(), view.request_id))?;
    Ok(match view.state {
        InvocationState::Cancelled => CommandStatus::Done,
        InvocationState::Succeeded
        | InvocationState::Failed
        | InvocationState::Expired
        | InvocationState::Queued
        | InvocationState::Running
        | InvocationState::Retrying => CommandStatus::Failed,
    })
}

/// Waits for the end of an invocation that was told to end; `None` if it does not come in time.
/// The cancellation is repeated meanwhile: an event that had not begun to run when it was cancelled
/// is told at once when it has.
async fn end_of_cancelled(
    server: &ServerConnection,
    id: &str,
    wait: Duration,
) -> Result<Option<InvocationView>, Error> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        tokio::time::sleep(CANCEL_AGAIN.min(left)).await;
        match server.client.cancel_invocation(id).await {
            Ok(Cancellation::Ended(view)) => return Ok(Some(*view)),
            Ok(Cancellation::Requested) => {}
            Err(ClientError::Refused(problem)) if problem.code == "already_ended" => {
                return Ok(Some(server.client.show_invocation(id, 0).await?));
            }
            // A synchronous call is known again when its record is written.
            Err(ClientError::Refused(problem)) if problem.status == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs an ended invocation again.
pub(super) async fn rerun(
    server: ServerConnection,
    args: &RerunArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let input = args.data.as_deref().map(|data| event(Some(data))).transpose()?;
    let accepted = server.client.rerun_invocation(&args.request_id, input.map(Into::into)).await?;
    printer.show(&accepted, |accepted| accepted.request_id.to_string())?;
    Ok(CommandStatus::Done)
}
