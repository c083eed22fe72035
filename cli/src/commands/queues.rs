//! `hanshu queues` shows what waits, runs and was dead-lettered.

use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::{Printer, format_age, table};

pub(super) async fn run(
    server: ServerConnection,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let list = server.client.list_queues().await?;
    printer.show(&list, |list| {
        if list.queues.is_empty() {
            return "all queues are empty".into();
        }
        let rows: Vec<_> = list
            .queues
            .iter()
            .map(|queue| {
                let trigger =
                    queue.trigger.as_ref().map_or_else(|| "(direct)".into(), ToString::to_string);
                [
                    format!("{}/{}", queue.namespace, queue.function),
                    trigger,
                    queue.waiting.to_string(),
                    queue.running.to_string(),
                    queue.oldest_age_s.map_or_else(|| "-".into(), format_age),
                    queue.dead_lettered.to_string(),
                ]
            })
            .collect();
        table(["FUNCTION", "TRIGGER", "WAITING", "RUNNING", "OLDEST", "DEAD-LETTERED"], &rows)
    })?;
    Ok(CommandStatus::Done)
}
