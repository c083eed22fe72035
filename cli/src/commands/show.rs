//! `hanshu list`, `show`, `delete`, `publish`.

use hanshu_api::wire::FunctionDetail;
use serde_json::json;

use crate::args::FunctionArgs;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::{Printer, bold, table};

pub(super) async fn list(
    server: ServerConnection,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let list = server.client.list_functions(server.settings.namespace()).await?;
    printer.show(&list, |list| {
        if list.functions.is_empty() {
            return format!("no functions in namespace `{}`", server.settings.namespace());
        }
        let rows: Vec<_> = list
            .functions
            .iter()
            .map(|each| {
                [
                    each.name.to_string(),
                    each.runtime.clone(),
                    format!("{} MB", each.memory_mb),
                    format!("{} s", each.timeout_s),
                    each.newest_version.map_or_else(|| "-".into(), |number| number.to_string()),
                    each.triggers.to_string(),
                    each.digest.short().to_owned(),
                    format!("{:.0}", each.updated_at),
                ]
            })
            .collect();
        table(
            ["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "VERSION", "TRIGGERS", "DIGEST", "DEPLOYED"],
            &rows,
        )
    })?;
    Ok(CommandStatus::Done)
}

pub(super) async fn show(
    server: ServerConnection,
    args: &FunctionArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let detail = server.client.show_function(server.function(&args.name)).await?;
    printer.show(&detail, format_function)?;
    Ok(CommandStatus::Done)
}

fn format_function(detail: &FunctionDetail) -> String {
    let mut text = format!("{}\n", bold(format!("{}/{}", detail.namespace, detail.name)));
    let mut field = |name: &str, value: String| text += &format!("  {name:<13}{value}\n");
    field("runtime", detail.runtime.clone());
    field("handler", detail.handler.clone());
    field("digest", detail.digest.to_string());
    field("code", detail.code.to_string());
    field("memory", format!("{} MB", detail.memory_mb));
    field("timeout", format!("{} s (init {} s)", detail.timeout_s, detail.init_timeout_s));
    field(
        "concurrency",
        detail.concurrency.map_or_else(|| "as the nodes allow".into(), |n| n.to_string()),
    );
    field("deployed", format!("{:.0}", detail.updated_at));
    for (name, value) in &detail.env {
        field("env", format!("{name}={value}"));
    }
    for version in &detail.versions {
        field(
            "version",
            format!(
                "{} ({}, {:.0})",
                version.version,
                version.digest.short(),
                version.published_at
            ),
        );
    }
    for trigger in &detail.triggers {
        let off = if trigger.enabled { "" } else { " (off)" };
        field("trigger", format!("{} {}{off}", trigger.name, trigger.summary));
    }
    text
}

pub(super) async fn delete(
    server: ServerConnection,
    args: &FunctionArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    server.client.delete_function(server.function(&args.name)).await?;
    let gone = json!({"deleted": args.name, "namespace": server.settings.namespace()});
    printer.show(&gone, |_| format!("deleted {}/{}", server.settings.namespace(), args.name))?;
    Ok(CommandStatus::Done)
}

pub(super) async fn publish(
    server: ServerConnection,
    args: &FunctionArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let version = server.client.publish(server.function(&args.name)).await?;
    printer.show(&version, |version| {
        format!("{} version {} ({})", args.name, version.version, version.digest.short())
    })?;
    Ok(CommandStatus::Done)
}
