//! `hanshu queues`.

use crate::client::Server;
use crate::error::{Error, Exit};
use crate::output::{Printer, age, table};

pub(super) async fn run(server: Server, printer: Printer) -> Result<Exit, Error> {
    let list = server.client.list_queues().await?;
    printer.show(&list, |list| {
        if list.queues.is_empty() {
            return "no queue holds anything".into();
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
                    queue.oldest_age_s.map_or_else(|| "-".into(), age),
                    queue.dead_lettered.to_string(),
                ]
            })
            .collect();
        table(["FUNCTION", "TRIGGER", "WAITING", "RUNNING", "OLDEST", "DEAD-LETTERED"], &rows)
    })?;
    Ok(Exit::Done)
}
