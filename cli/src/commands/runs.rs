//! `hanshu runs`, `hanshu rerun` and `hanshu cancel`.

use hanshu_api::InvocationFilter;
use hanshu_api::wire::{InvocationList, InvocationView};

use super::invoke::event;
use super::logs::moment;
use crate::args::{CancelArgs, RerunArgs, RunsArgs};
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::{Printer, table};

/// Invocations asked for at once.
const PAGE: usize = 200;
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

/// Ends an event that waits as cancelled.
pub(super) async fn cancel(
    server: ServerConnection,
    args: &CancelArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let view = server.client.cancel_invocation(&args.request_id).await?;
    printer.show(&view, |view| format!("cancelled {}", view.request_id))?;
    Ok(CommandStatus::Done)
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
