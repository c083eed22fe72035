//! `hanshu`: the server, its command line, and process 1 of every sandbox, in one program.

mod args;
mod client;
mod commands;
mod error;
mod go;
mod manifest;
mod output;
mod package;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::output::Printer;

fn main() -> ExitCode {
    // These two run inside and around sandboxes: before any thread, parser or runtime.
    match std::env::args().nth(1).as_deref() {
        Some("shim") => return hanshu_runtimes::shim::main(),
        Some("isolate") => return hanshu_runtimes::isolation::main(),
        _ => {}
    }
    let cli = Cli::parse();
    let printer = Printer::new(cli.global.output);
    match commands::run(cli, printer) {
        Ok(exit) => exit.into(),
        Err(error) => {
            printer.note(format!("error: {error}"));
            ExitCode::from(error.code())
        }
    }
}
