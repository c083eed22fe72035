//! Receives the reports of functions, on a listener in a network namespace of its own: functions
//! cannot reach the host that their server runs on.

use std::net::TcpListener as StdListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::run_ledger::{CallKind, RunLedger};

/// Address and port that functions connect to.
pub(crate) const HOST: &str = "10.99.0.2";
pub(crate) const PORT: u16 = 7_000;
/// The servers' end of the veth pair, and the collector's.
const NEAR: &str = "10.99.0.1/30";
const FAR: &str = "10.99.0.2/30";
/// Longest time for each step of making the veth pair.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a veth pair and listens at its far end.
///
/// # Errors
/// The kernel has no `veth`, or `ip` is not installed.
pub(crate) fn listen() -> anyhow::Result<StdListener> {
    let (thread_sender, thread_receiver) = mpsc::channel();
    let (pair_sender, pair_receiver) = mpsc::channel::<()>();
    let far = std::thread::spawn(move || -> anyhow::Result<StdListener> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network for the collector")?;
        thread_sender.send(gettid()).context("the soak has given up waiting")?;
        pair_receiver.recv_timeout(STEP_TIMEOUT).context("there is no veth pair")?;
        // Commands that this thread starts run in its network namespace.
        ip(&["addr", "add", FAR, "dev", "soak-far"])?;
        ip(&["link", "set", "soak-far", "up"])?;
        Ok(StdListener::bind((HOST, PORT))?)
    });
    let thread = thread_receiver.recv_timeout(STEP_TIMEOUT);
    if let Ok(thread) = thread {
        ip(&["link", "add", "soak-near", "type", "veth", "peer", "name", "soak-far"])?;
        ip(&["addr", "add", NEAR, "dev", "soak-near"])?;
        ip(&["link", "set", "soak-near", "up"])?;
        ip(&["link", "set", "soak-far", "netns", &thread.to_string()])?;
        let _ = pair_sender.send(());
    }
    let listener = far.join().map_err(|_| anyhow!("the collector's thread panicked"))??;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().context("ip")?;
    if !output.status.success() {
        bail!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Accepts connections and writes reports to the ledgers.
pub(crate) async fn collect(
    listener: StdListener,
    ledgers: Arc<Vec<Arc<RunLedger>>>,
    tasks: TaskTracker,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let ledgers = ledgers.clone();
        tasks.spawn(async move {
            // A sandbox that is stopped breaks its connection; that is expected.
            let _ = read_reports(stream, &ledgers).await;
        });
    }
}

async fn read_reports(mut stream: TcpStream, ledgers: &[Arc<RunLedger>]) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let known = match words.as_slice() {
            ["begin", server, run, kind, event_key, request_id] => {
                let ledger = server.parse().ok().and_then(|server: usize| ledgers.get(server));
                match (ledger, CallKind::parse(kind)) {
                    (Some(ledger), Some(kind)) => {
                        ledger.run_began(run, kind, event_key, request_id)
                    }
                    _ => false,
                }
            }
            ["end", server, run] => {
                let ledger = server.parse().ok().and_then(|server: usize| ledgers.get(server));
                ledger.is_some_and(|ledger| ledger.run_ended(run))
            }
            _ => false,
        };
        writer.write_all(if known { b"ok\n" } else { b"no\n" }).await?;
    }
    Ok(())
}
