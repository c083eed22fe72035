//! Where functions report what they do: a listener in a network of its own, since functions
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

use crate::ledger::{Ledger, Way};

/// Where functions find it.
pub(crate) const HOST: &str = "10.99.0.2";
pub(crate) const PORT: u16 = 7_000;
/// The other end of the wire, on the servers' side.
const NEAR: &str = "10.99.0.1/30";
const FAR: &str = "10.99.0.2/30";
/// Each step of laying the wire.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Lays the wire and listens at its other end.
///
/// # Errors
/// The kernel has no `veth`, or `ip` is missing.
pub(crate) fn listen() -> anyhow::Result<StdListener> {
    let (tell, told) = mpsc::channel();
    let (laid, go_on) = mpsc::channel::<()>();
    let far = std::thread::spawn(move || -> anyhow::Result<StdListener> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network for the collector")?;
        tell.send(gettid()).context("the soak waits no more")?;
        go_on.recv_timeout(STEP_TIMEOUT).context("the wire was not laid")?;
        // Commands of this thread run in its network.
        ip(&["addr", "add", FAR, "dev", "soak-far"])?;
        ip(&["link", "set", "soak-far", "up"])?;
        Ok(StdListener::bind((HOST, PORT))?)
    });
    let thread = told.recv_timeout(STEP_TIMEOUT);
    if let Ok(thread) = thread {
        ip(&["link", "add", "soak-near", "type", "veth", "peer", "name", "soak-far"])?;
        ip(&["addr", "add", NEAR, "dev", "soak-near"])?;
        ip(&["link", "set", "soak-near", "up"])?;
        ip(&["link", "set", "soak-far", "netns", &thread.to_string()])?;
        let _ = laid.send(());
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

/// Writes down every report, and only then says so.
pub(crate) async fn collect(
    listener: StdListener,
    ledgers: Arc<Vec<Arc<Ledger>>>,
    tasks: TaskTracker,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let ledgers = ledgers.clone();
        tasks.spawn(async move {
            // The end of a sandbox ends its connection, however.
            let _ = hear(stream, &ledgers).await;
        });
    }
}

async fn hear(mut stream: TcpStream, ledgers: &[Arc<Ledger>]) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let known = match words.as_slice() {
            ["begin", world, run, way, what, request_id] => {
                let ledger = world.parse().ok().and_then(|world: usize| ledgers.get(world));
                match (ledger, Way::of(way)) {
                    (Some(ledger), Some(way)) => ledger.begins(run, way, what, request_id),
                    _ => false,
                }
            }
            ["end", world, run] => {
                let ledger = world.parse().ok().and_then(|world: usize| ledgers.get(world));
                ledger.is_some_and(|ledger| ledger.ends(run))
            }
            _ => false,
        };
        writer.write_all(if known { b"ok\n" } else { b"no\n" }).await?;
    }
    Ok(())
}
