//! `make bench`: every figure that is promised, measured against a ceiling of the same run.

mod args;
mod ceiling;
mod client;
mod cpu;
mod docker;
mod metrics;
mod oha;
mod promises;
mod report;
mod rows;
mod run;
mod server;
mod suite;
mod warm;
mod wrk;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Args, Part};

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime")?;
    runtime.block_on(async {
        match &args.part {
            Some(Part::Front { socket }) => ceiling::front::serve(socket).await?,
            Some(Part::Hello) => ceiling::hello::serve().await?,
            None => return suite::run(&args).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}
