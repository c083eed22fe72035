//! What a node of these tests consists of: ports with fixed behaviour, and a listener.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use bytes::Bytes;
use hanshu_cluster::ClusterServer;
use hanshu_core::ports::{
    BuildProgress, CancelReach, ImageBuilder, ImageError, Invoke, InvokerNode, NodeRegistry,
    PackageError, PackageStore, StoreError, TriggerHealth,
};
use hanshu_core::{
    Digest, Failure, FunctionId, Invocation, InvocationMode, Namespace, NodeId, Outcome, Refusal,
    Report, RequestId, RuntimeFamily, StatusCode, TriggerId, Verdict,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Returns each event, except for functions whose names say another end.
#[derive(Default)]
pub(crate) struct EchoInvoker {
    /// Number of all calls.
    pub(crate) calls: AtomicUsize,
    /// What arrived last.
    pub(crate) last: Mutex<Option<Invocation>>,
    /// What a cancellation finds.
    pub(crate) runs: Mutex<Option<RequestId>>,
    /// What was to be cancelled.
    pub(crate) cancelled: Mutex<Vec<RequestId>>,
    /// The node that reports name.
    pub(crate) node: Option<NodeId>,
}

/// Nodes that are always live.
pub(crate) struct LiveNodes(pub(crate) Vec<InvokerNode>);

#[async_trait]
impl NodeRegistry for LiveNodes {
    async fn renew(&self, _: &InvokerNode, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn leave(&self, _: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn live(&self) -> Result<Vec<InvokerNode>, StoreError> {
        Ok(self.0.clone())
    }
}

#[async_trait]
impl Invoke for EchoInvoker {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        self.calls.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap() = Some(invocation.clone());
        let verdict = match invocation.function.function.name.as_str() {
            "raises" => Verdict::Failed(Failure {
                status_code: StatusCode::UserException,
                error_code: 1,
                error_message: "raised".into(),
                error_type: None,
                stack_trace: None,
            }),
            "throttled" => Verdict::Refused(Refusal::Concurrency { limit: 3 }),
            _ => Verdict::Returned(invocation.event.payload),
        };
        let log_tail = match invocation.mode {
            InvocationMode::Sync { tail, .. } => tail.then(|| "the log's end".to_owned()),
            InvocationMode::Async { .. } => None,
        };
        let report = Report {
            started_at: "2026-01-31T12:00:00Z".parse().unwrap(),
            duration: Duration::from_micros(1_234),
            cold: false,
            init: None,
            memory_bytes: 0,
            node: self.node.clone(),
            log_tail,
        };
        Outcome { verdict, report }
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        self.cancelled.lock().unwrap().push(request_id);
        match *self.runs.lock().unwrap() == Some(request_id) {
            true => CancelReach::Reached,
            false => CancelReach::NotFound,
        }
    }
}

/// Packages in memory; each unpacks to a folder with `index.py`. A zip of `bad` is refused.
pub(crate) struct PackageMap {
    pub(crate) kept: Mutex<HashMap<Digest, Bytes>>,
    folder: TempDir,
}

impl PackageMap {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("index.py"), "").unwrap();
        Self { kept: Mutex::default(), folder }
    }
}

#[async_trait]
impl PackageStore for PackageMap {
    async fn has(&self, digest: &Digest) -> bool {
        self.kept.lock().unwrap().contains_key(digest)
    }

    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError> {
        if zip == "bad" {
            return Err(PackageError::Refused("entry `../x` leaves the package".into()));
        }
        self.kept.lock().unwrap().insert(digest.clone(), zip);
        Ok(())
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        let found = self.kept.lock().unwrap().get(digest).cloned();
        found.ok_or_else(|| PackageError::Missing(digest.clone()))
    }

    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
        self.zip(digest).await.map(|_| self.folder.path().to_owned())
    }

    async fn collect(&self, _keep: &[Digest]) -> Result<u64, PackageError> {
        Ok(0)
    }
}

/// Images that take two lines of progress; Go's cannot be made.
pub(crate) struct TwoStepImages;

#[async_trait]
impl ImageBuilder for TwoStepImages {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        progress("step 1 of 2");
        progress("step 2 of 2");
        if family == RuntimeFamily::GO {
            return Err(ImageError("debootstrap is missing".into()));
        }
        Ok(())
    }
}

/// The stream of `default/hello/redis` cannot be read.
pub(crate) struct UnreadableStream;

impl TriggerHealth for UnreadableStream {
    fn problem(&self, trigger: &TriggerId) -> Option<String> {
        (trigger.name.as_str() == "redis").then(|| "the stream cannot be read".into())
    }

    fn problems(&self) -> Vec<(TriggerId, String)> {
        let name = "hello".parse().unwrap();
        let function = FunctionId { namespace: Namespace::default(), name };
        let id = TriggerId { function, name: "redis".parse().unwrap() };
        let problem = self.problem(&id).unwrap();
        vec![(id, problem)]
    }
}

/// Serves on a port of its own until the guard is dropped.
pub(crate) async fn listen(server: ClusterServer) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(server);
    let router = Router::new().fallback(move |request: Request| {
        let server = server.clone();
        async move { server.respond::<_, axum::body::Body>(request).await }
    });
    let stop = CancellationToken::new();
    let serving = stop.clone().run_until_cancelled_owned(async move {
        axum::serve(listener, router).await.unwrap();
    });
    TaskTracker::new().spawn(serving);
    (address, stop.drop_guard())
}
