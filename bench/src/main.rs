//! `make bench`: measures every promised figure against a ceiling of the same run.

mod args;
mod ceiling;
mod client;
mod docker_cli;
mod oha;
mod process_stats;
mod promises_page;
mod report;
mod rows;
mod run;
mod server;
mod server_metrics;
mod suite;
mod warm_calls;
mod wrk;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{BenchArgs, BenchHelper};

fn main() -> anyhow::Result<ExitCode> {
    let args = BenchArgs::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime")?;
    runtime.block_on(async {
        match &args.part {
            Some(BenchHelper::Front { socket }) => ceiling::worker_proxy::serve(socket).await?,
            Some(BenchHelper::Hello) => ceiling::axum_hello::serve().await?,
            None => return suite::run(&args).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}
