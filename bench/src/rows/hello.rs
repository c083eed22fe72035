//! A whole warm call against what HTTP alone costs here: a bare axum answering at once.

use std::process::Child;

use super::sync::EVENT;
use crate::ceiling::subcommand;
use crate::client::Client;
use crate::cpu::Side;
use crate::report::{Line, Target};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::warm::{self, Pairs};
use crate::wrk::Request;

const CONNECTIONS: u32 = 16;

/// Ends with the row.
struct Hello(Child);

impl Drop for Hello {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    server.deploy(&sources().join("functions/echo-python")).await?;
    let ours = server.call("echo-python", EVENT)?;
    Client::once(&ours).await?;
    let (child, port) = subcommand(&["hello"])?;
    let hello = Hello(child);
    let bare = Request {
        url: format!("http://127.0.0.1:{port}/"),
        headers: vec![("content-type", "application/json".into())],
        body: EVENT.to_vec(),
    };
    let side = Side { processes: vec![hello.0.id()], containers: Vec::new() };
    let mut pairs = Pairs::default();
    for _ in 0..run.measure.repeats {
        pairs.ours.push(warm::sample(run, &server.side()?, &ours, CONNECTIONS).await?);
        pairs.ceiling.push(warm::sample(run, &side, &bare, CONNECTIONS).await?);
    }
    Ok(vec![pairs.line((row, "requests/s"), "/s", |sample| sample.per_second, Target::Told)])
}
