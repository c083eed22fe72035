//! `hanshu invoke`.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;

use crate::args::Invoke;
use crate::client::{Client, is_function_failure, part};
use crate::error::{Error, Exit};
use crate::output::Printer;

pub(super) async fn run(client: Client, args: &Invoke, printer: Printer) -> Result<Exit, Error> {
    let path = format!("/v1/functions/{}/invocations", part(&args.name));
    let mut request = client.request(Method::POST, &path).body(event(args.data.as_deref())?);
    request = request.header("content-type", "application/json");
    if let Some(qualifier) = &args.qualifier {
        request = request.query(&[("qualifier", qualifier)]);
    }
    if args.log {
        request = request.header("x-hanshu-log", "tail");
    }
    if args.asynchronous {
        let response = client.accepted(request.header("prefer", "respond-async")).await?;
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let id =
            id.ok_or_else(|| Error::Answer("the server gave no request id".into()))?.to_owned();
        let accepted = serde_json::json!({"requestId": id});
        return printer.show(&accepted, |_| id).map(|()| Exit::Done);
    }

    let progress = printer.progress(format!("{} runs", args.name));
    let response = client.send(request).await;
    drop(progress);
    let response = response?;
    let exit = match (response.status().is_success(), is_function_failure(&response)) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Failed,
        (false, false) => return Err(client.refused(response).await),
    };
    if args.log
        && let Some(tail) = response.headers().get("x-hanshu-log-result")
        && let Ok(tail) = BASE64.decode(tail.as_bytes())
    {
        printer.note(String::from_utf8_lossy(&tail).trim_end());
    }
    let mut answer = client.body(response).await?;
    if !answer.ends_with(b"\n") {
        answer.push(b'\n');
    }
    printer.bytes(&answer)?;
    Ok(exit)
}

/// `JSON`, `@FILE` or `-`; nothing is `{}`.
fn event(data: Option<&str>) -> Result<Vec<u8>, Error> {
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
