//! `hanshu trigger list|enable|disable|fire`.

use hanshu_api::wire::{TriggerChange, TriggerDetail};
use hanshu_core::TriggerKind;

use crate::args::TriggerAction;
use crate::client::Server;
use crate::error::{Error, Exit};
use crate::output::{Printer, table};

pub(super) async fn run(
    server: Server,
    action: &TriggerAction,
    printer: Printer,
) -> Result<Exit, Error> {
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
            let timers = Some(TriggerKind::Timer);
            let trigger = pick(&server, &args.name, args.trigger.as_deref(), timers).await?;
            let function = server.function(&args.name);
            let fired = server.client.fire_trigger(function, &trigger).await?;
            printer.show(&fired, |fired| fired.request_id.to_string())?;
        }
    }
    Ok(Exit::Done)
}

async fn switch(
    server: &Server,
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
    server: &Server,
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
            "`{name}` has several {what}s: say which of {}",
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
    [trigger.name.to_string(), trigger.kind.as_str().into(), state(trigger), what(trigger), next]
}

/// What a trigger does, in a few words.
pub(super) fn what(trigger: &TriggerDetail) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    match trigger.kind {
        TriggerKind::Timer => format!("{} ({})", text(&trigger.cron), text(&trigger.timezone)),
        TriggerKind::Http => {
            let methods = trigger.methods.clone().unwrap_or_default().join(",");
            let methods = if methods.is_empty() { "ANY".into() } else { methods };
            let url = trigger.url.clone().or_else(|| trigger.path.clone()).unwrap_or_default();
            format!("{methods} {url}")
        }
        TriggerKind::Redis => format!("{} at {}", text(&trigger.stream), text(&trigger.url)),
    }
}
