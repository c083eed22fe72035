//! `hanshu invoke` calls a function and prints its answer.

use std::io::Read as _;

use hanshu_api::InvokeRequest;

use crate::args::InvokeArgs;
use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

pub(super) async fn run(
    server: ServerConnection,
    args: &InvokeArgs,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let invocation = InvokeRequest {
        function: server.function(&args.name),
        qualifier: args.qualifier.as_deref(),
        payload: event(args.data.as_deref())?.into(),
    };
    if args.asynchronous {
        let accepted = server.client.invoke_async(invocation).await?;
        printer.show(&accepted, |accepted| accepted.request_id.to_string())?;
        return Ok(CommandStatus::Done);
    }

    let progress = printer.progress(format!("{} runs", args.name));
    let answer = server.client.invoke(invocation, args.log).await;
    drop(progress);
    let answer = answer?;
    if let Some(tail) = &answer.log_tail {
        printer.note(String::from_utf8_lossy(tail).trim_end());
    }
    let mut text = answer.body.to_vec();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    printer.bytes(&text)?;
    Ok(if answer.failed { CommandStatus::Failed } else { CommandStatus::Done })
}

/// `JSON`, `@FILE` or `-`; nothing is `{}`.
pub(super) fn event(data: Option<&str>) -> Result<Vec<u8>, Error> {
    match data {
        None => Ok(b"{}".to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Error::Usage(format!("standard input cannot be read: {error}")))?;
            Ok(bytes)
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| Error::file(file.as_ref(), error)),
            None => Ok(text.as_bytes().to_vec()),
        },
    }
}
