//! A separate Redis, and bare `XADD`s to it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::run::BenchRun;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// The stream, deleted after each measurement.
const STREAM: &str = "bench";

/// Stopped when it is dropped.
#[derive(Debug)]
pub(crate) struct BareRedis {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl BareRedis {
    /// Starts one that syncs its file before each answer.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn start(run: &BenchRun) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("r-").tempdir_in(run.dir())?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run `redis-server` (Debian package redis-server)")?;
        let redis = Self { child, port, _folder: folder };
        let begun = Instant::now();
        while redis.connect().await.is_err() {
            ensure!(begun.elapsed() < READY_WITHIN, "redis-server does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// Entries per second that this many producers add over one connection, each waiting for its own.
    ///
    /// # Errors
    /// If Redis refuses an entry.
    pub(crate) async fn added_per_second(
        &self,
        payload: &[u8],
        producers: usize,
        time: Duration,
    ) -> anyhow::Result<f64> {
        let connection = self.connect().await?;
        let begun = Instant::now();
        let producers = (0..producers).map(|_| {
            let mut connection = connection.clone();
            async move {
                let mut added = 0_u32;
                while begun.elapsed() < time {
                    let mut add = redis::cmd("XADD");
                    add.arg(STREAM).arg("*").arg("event").arg(payload);
                    let _: String = add.query_async(&mut connection).await?;
                    added += 1;
                }
                anyhow::Ok(added)
            }
        });
        let added: u32 = try_join_all(producers).await?.into_iter().sum();
        let took = begun.elapsed().as_secs_f64();
        let mut connection = self.connect().await?;
        let _: u32 = redis::cmd("DEL").arg(STREAM).query_async(&mut connection).await?;
        Ok(f64::from(added) / took)
    }
}

impl Drop for BareRedis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
