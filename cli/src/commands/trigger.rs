//! `hanshu trigger list|enable|disable|fire`.

use hanshu_api::wire::{TriggerChange, TriggerDetail};
use hanshu_core::{TimerTrigger, TriggerConfig as _, TriggerKind};

use crate::args::TriggerAction;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::{Printer, table};

pub(super) async fn run(
    server: ServerConnection,
    action: &TriggerAction,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    match action {
        TriggerAction::List(args) => {
            let list = server.client.list_triggers(server.function(&args.name)).await?;
            printer.show(&list, |list| {
                if list.triggers.is_empty() {
                    return format!("{}/{} has no triggers", list.namespace, list.function);
                }
                let rows: Vec<_> = list.triggers.iter().map(row).collect();
                table(["TRIGGER", "TYPE", "STATE", "WHAT", "NEXT"], &rows)
            })?;
        }
        TriggerAction::Enable(args) => {
            switch(&server, &args.name, args.trigger.as_deref(), true, printer).await?;
        }
        TriggerAction::Disable(args) => {
            switch(&server, &args.name, args.trigger.as_deref(), false, printer).await?;
        }
        TriggerAction::Fire(args) => {
            let timers = Some(TimerTrigger::KIND);
            let trigger = pick(&server, &args.name, args.trigger.as_deref(), timers).await?;
            let function = server.function(&args.name);
            let fired = server.client.fire_trigger(function, &trigger).await?;
            printer.show(&fired, |fired| fired.request_id.to_string())?;
        }
    }
    Ok(CommandStatus::Done)
}

async fn switch(
    server: &ServerConnection,
    name: &str,
    trigger: Option<&str>,
    enabled: bool,
    printer: Printer,
) -> Result<(), Error> {
    let trigger = pick(server, name, trigger, None).await?;
    let change = TriggerChange { enabled };
    let now = server.client.change_trigger(server.function(name), &trigger, &change).await?;
    printer.show(&now, |now| format!("{name}/{} is {}", now.name, state(now)))
}

/// The trigger that was named, or the only one of a kind (or of all).
async fn pick(
    server: &ServerConnection,
    name: &str,
    trigger: Option<&str>,
    kind: Option<TriggerKind>,
) -> Result<String, Error> {
    if let Some(trigger) = trigger {
        return Ok(trigger.into());
    }
    let list = server.client.list_triggers(server.function(name)).await?;
    let fits = |each: &&TriggerDetail| kind.is_none_or(|kind| each.kind == kind);
    let names: Vec<_> = list.triggers.iter().filter(fits).map(|each| each.name.as_str()).collect();
    let what = if kind.is_some() { "timer" } else { "trigger" };
    match names.as_slice() {
        [one] => Ok((*one).into()),
        [] => Err(Error::Usage(format!(
            "`{name}` has no {what}\nhint: add one to hanshu.toml under \
             [[functions.{name}.triggers]] and deploy; `hanshu trigger list {name}` shows what \
             there is"
        ))),
        many => Err(Error::Usage(format!(
            "`{name}` has several {what}s: name one of {}",
            many.join(", ")
        ))),
    }
}

fn state(trigger: &TriggerDetail) -> String {
    match (&trigger.health_problem, trigger.enabled) {
        (Some(health_problem), true) => format!("on, but {health_problem}"),
        (None, true) => "on".into(),
        (_, false) => "off".into(),
    }
}

fn row(trigger: &TriggerDetail) -> [String; 5] {
    let next = trigger.next_ticks.first().map_or_else(|| "-".into(), |tick| tick.local.clone());
    [
        trigger.name.to_string(),
        trigger.kind.as_str().into(),
        state(trigger),
        trigger.summary.clone(),
        next,
    ]
}
