//! A database that goes away in the middle, and comes back.

use std::time::Duration;

use hanshu_core::ErrorKind;
use hanshu_core::ports::FunctionRegistry as _;
use hanshu_store::{SqlDatabase, SqlDatabaseOptions, SqlRegistry};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::databases::postgres_url;

/// Ends every connection of that name, as a restart of the server would.
async fn end_connections(url: &str, application: &str) -> u64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    sqlx::query(end).bind(application).execute(&mut connection).await.unwrap().rows_affected()
}

#[tokio::test]
async fn connections_that_the_server_ended_are_made_again() {
    let Some(url) = postgres_url().await else { return };
    let application = format!("survive-{}", uuid::Uuid::new_v4().simple());
    let db = SqlDatabase::open(&format!("{url}&application_name={application}")).await.unwrap();
    let registry = SqlRegistry::new(db);
    for _ in 0..3 {
        registry.ping().await.unwrap();
        assert!(0 < end_connections(&url, &application).await);
        registry.changes(0).await.unwrap();
    }
}

#[tokio::test]
async fn while_the_server_is_unavailable_every_use_says_so_and_then_goes_on() {
    let Some(url) = postgres_url().await else { return };
    let mut proxy = DatabaseProxy::start(&url, 0).await;
    let options = SqlDatabaseOptions {
        acquire_timeout: Duration::from_millis(500),
        ..SqlDatabaseOptions::default()
    };
    let registry = SqlRegistry::new(SqlDatabase::open_with(&proxy.url, &options).await.unwrap());
    let before = registry.changes(0).await.unwrap();
    let port = proxy.stop().await;
    for _ in 0..3 {
        let error = registry.changes(0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    proxy = DatabaseProxy::start(&url, port).await;
    assert_eq!(registry.changes(0).await.unwrap(), before);
    proxy.stop().await;
}

/// A way to the server that can be cut.
struct DatabaseProxy {
    url: String,
    port: u16,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl DatabaseProxy {
    async fn start(url: &str, port: u16) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let server = format!("{}:{}", server.get_host(), server.get_port());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(url.contains(&server), "the tests' URL names host and port");
        let url = url.replace(&server, &format!("127.0.0.1:{port}"));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let accepting = accept(listener, server, tasks.clone());
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(accepting).await });
        Self { url, port, stop, tasks }
    }

    /// Cuts every connection; returns the port.
    async fn stop(self) -> u16 {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.port
    }
}

/// Its connections end with it.
async fn accept(listener: TcpListener, server: String, tasks: TaskTracker) {
    let all = CancellationToken::new();
    let _cut = all.clone().drop_guard();
    while let Ok((mut client, _)) = listener.accept().await {
        let (server, all) = (server.clone(), all.clone());
        tasks.spawn(async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            let copying = copy_bidirectional(&mut client, &mut server);
            all.run_until_cancelled(copying).await
        });
    }
}
