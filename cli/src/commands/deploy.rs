//! `hanshu deploy` deploys the functions of a manifest.

use hanshu_api::FunctionPath;
use hanshu_api::wire::{DeployedFunction, TriggerDetail};

use crate::args::DeployArgs;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::manifest::{Manifest, ManifestFunction};
use crate::output::{Printer, bold};
use crate::package::Package;

pub(super) async fn run(
    server: ServerConnection,
    args: &DeployArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut manifest = Manifest::read(&args.dir, &environment)?;
    if let Some(wanted) = &args.function {
        let names: Vec<_> = manifest.functions.iter().map(|each| each.name.clone()).collect();
        manifest.functions.retain(|each| each.name == *wanted);
        if manifest.functions.is_empty() {
            return Err(Error::Usage(format!(
                "hanshu.toml has no function `{wanted}`; its functions: {}",
                names.join(", ")
            )));
        }
    }
    let settings = &server.settings;
    let namespace = settings.namespace_override.clone().or_else(|| manifest.namespace.clone());
    let namespace = namespace.unwrap_or_else(|| settings.namespace_default.clone());
    let mut done = Vec::new();
    for function in std::mem::take(&mut manifest.functions) {
        let name = function.name.clone();
        let deployed = deploy(&server, &namespace, function, printer).await;
        let deployed = deployed.map_err(|error| match error {
            Error::Refused(problem) => Error::Refused(Box::new(manifest.locate(&name, *problem))),
            Error::Usage(_) | Error::Answer(_) | Error::Unreachable(_) => error,
        })?;
        if !printer.is_json() {
            printer.line(format_deployed(&deployed).trim_end())?;
        }
        done.push(deployed);
    }
    if printer.is_json() {
        printer.show(&done, |_| String::new())?;
    }
    Ok(CommandStatus::Done)
}

async fn deploy(
    server: &ServerConnection,
    namespace: &str,
    function: ManifestFunction,
    printer: Printer,
) -> Result<DeployedFunction, Error> {
    let ManifestFunction { name, code, mut settings } = function;
    let progress = printer.progress(format!("{name}: packing"));
    let package = Package::make(&code, &settings.runtime, &settings.handler)?;
    if !server.client.has_package(&package.digest).await? {
        progress.step(&format!("{name}: uploading {} KB", package.zip.len().div_ceil(1024)));
        server.client.put_package(&package.digest, package.zip.into()).await?;
    }
    settings.code = package.digest.to_string();
    progress.step(&format!("{name}: deploying"));
    let function = FunctionPath { namespace, name: &name };
    let on_progress = |text: &str| progress.step(&format!("{name}: {text}"));
    Ok(server.client.deploy(function, &settings, on_progress).await?)
}

fn format_deployed(deployed: &DeployedFunction) -> String {
    let changed = if deployed.changed { "deployed" } else { "unchanged" };
    let name = bold(format!("{}/{}", deployed.namespace, deployed.name));
    let mut text = format!("{name} {changed} ({})\n", deployed.digest.short());
    for trigger in &deployed.triggers {
        let off = if trigger.enabled { "" } else { "  (off)" };
        let TriggerDetail { kind, name, summary, .. } = trigger;
        text += &format!("  {kind:<6} {name}  {summary}{off}\n");
        text += &format_details(trigger);
    }
    for name in &deployed.removed {
        text += &format!("  removed trigger {name}\n");
    }
    text
}

fn format_details(trigger: &TriggerDetail) -> String {
    let ticks = trigger.next_ticks.iter().map(|tick| format!("         next {}\n", tick.local));
    let key = trigger.fields.get("key").and_then(|key| key.as_str());
    let key = key.map(|key| format!("         x-hanshu-key: {key}\n"));
    ticks.chain(key).collect()
}
