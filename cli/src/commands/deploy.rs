//! `hanshu deploy`.

use futures_util::StreamExt as _;
use hanshu_core::TriggerKind;
use hanshu_gateway::wire::{DeployLine, DeployedFunction, TriggerDetail};
use reqwest::{Method, Response, StatusCode};

use super::trigger::what;
use crate::args::Deploy;
use crate::client::{Client, part};
use crate::error::{Error, Exit};
use crate::manifest::{Function, Manifest};
use crate::output::{Printer, Progress, bold};
use crate::package::Package;

/// Longest line of a deploy's answer.
const LINE_BYTES_MAX: usize = 1 << 20;

pub(super) async fn run(client: Client, args: &Deploy, printer: Printer) -> Result<Exit, Error> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut manifest = Manifest::read(&args.dir, &environment)?;
    if let Some(wanted) = &args.function {
        let names: Vec<_> = manifest.functions.iter().map(|each| each.name.clone()).collect();
        manifest.functions.retain(|each| each.name == *wanted);
        if manifest.functions.is_empty() {
            return Err(Error::Usage(format!(
                "no function `{wanted}` in it; there is: {}",
                names.join(", ")
            )));
        }
    }
    let settings = client.settings();
    let namespace = settings.namespace_said.clone().or_else(|| manifest.namespace.clone());
    let namespace = namespace.unwrap_or_else(|| settings.namespace_default.clone());
    let mut done = Vec::new();
    for function in std::mem::take(&mut manifest.functions) {
        let name = function.name.clone();
        let deployed = deploy(&client, &namespace, function, printer).await;
        let deployed = deployed.map_err(|error| match error {
            Error::Refused(problem) => Error::Refused(Box::new(manifest.locate(&name, *problem))),
            Error::Usage(_) | Error::Answer(_) | Error::Unreachable(_) => error,
        })?;
        if !printer.is_json() {
            printer.line(text(&deployed).trim_end())?;
        }
        done.push(deployed);
    }
    if printer.is_json() {
        printer.show(&done, |_| String::new())?;
    }
    Ok(Exit::Done)
}

async fn deploy(
    client: &Client,
    namespace: &str,
    function: Function,
    printer: Printer,
) -> Result<DeployedFunction, Error> {
    let Function { name, code, mut settings } = function;
    let progress = printer.progress(format!("{name}: packing"));
    let package = Package::make(&code, &settings.runtime, &settings.handler)?;
    let path = format!("/v1/packages/{}", package.digest);
    let known = client.send(client.plain(Method::HEAD, &path)).await?;
    match known.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND => {
            progress.say(&format!("{name}: uploading {} KB", package.zip.len().div_ceil(1024)));
            client.accepted(client.plain(Method::PUT, &path).body(package.zip)).await?;
        }
        // A HEAD has no body: asked again, the server says why.
        _ => drop(client.accepted(client.request(Method::GET, "/v1/functions")).await?),
    }
    settings.code = package.digest;
    progress.say(&format!("{name}: deploying"));
    let request = client
        .request_in(Method::PUT, &format!("/v1/functions/{}", part(&name)), namespace)
        .header("accept", "application/x-ndjson")
        .json(&settings);
    let response = client.accepted(request).await?;
    follow(client, response, &name, &progress).await
}

/// Shows progress until the last line.
async fn follow(
    client: &Client,
    response: Response,
    name: &str,
    progress: &Progress,
) -> Result<DeployedFunction, Error> {
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    loop {
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            match stream.next().await {
                Some(Ok(bytes)) if buffer.len() + bytes.len() <= LINE_BYTES_MAX => buffer.extend_from_slice(&bytes),
                Some(Ok(_)) => return Err(Error::Answer("the server's answer has no end".into())),
                Some(Err(error)) => return Err(client.unreachable(&error)),
                None if !buffer.is_empty() => buffer.push(b'\n'),
                None => return Err(Error::Unreachable("the server hung up in the middle of the deploy; it may be done or not: deploy again".into())),
            }
            continue;
        };
        let line: Vec<_> = buffer.drain(..=end).collect();
        // Without progress to tell, the answer is the deployed function itself.
        let parsed = serde_json::from_slice::<DeployLine>(&line)
            .or_else(|_| serde_json::from_slice(&line).map(DeployLine::DeployResult));
        match parsed {
            Ok(DeployLine::Progress(what)) => progress.say(&format!("{name}: {what}")),
            Ok(DeployLine::DeployResult(deployed)) => return Ok(deployed),
            Ok(DeployLine::Problem(problem)) => return Err(Error::Refused(Box::new(problem))),
            Err(error) => {
                return Err(Error::Answer(format!("the server's answer cannot be read: {error}")));
            }
        }
    }
}

fn text(deployed: &DeployedFunction) -> String {
    let changed = if deployed.changed { "deployed" } else { "unchanged" };
    let name = bold(format!("{}/{}", deployed.namespace, deployed.name));
    let mut text = format!("{name} {changed} ({})\n", deployed.digest.short());
    for trigger in &deployed.triggers {
        let off = if trigger.enabled { "" } else { "  (off)" };
        text +=
            &format!("  {:<6} {}  {}{off}\n", trigger.kind.as_str(), trigger.name, what(trigger));
        text += &details(trigger);
    }
    for name in &deployed.removed {
        text += &format!("  removed trigger {name}\n");
    }
    text
}

fn details(trigger: &TriggerDetail) -> String {
    match trigger.kind {
        TriggerKind::Timer => trigger
            .next_ticks
            .iter()
            .map(|tick| format!("         next {}\n", tick.local))
            .collect(),
        TriggerKind::Http => match &trigger.key {
            Some(key) => format!("         x-hanshu-key: {key}\n"),
            None => String::new(),
        },
        TriggerKind::Redis => String::new(),
    }
}
