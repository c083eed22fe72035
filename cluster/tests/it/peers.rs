//! Invocations, packages, images and health problems, from one node to another.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hanshu_cluster::{
    Balancer, ClusterInvoker, ClusterServer, ClusterServerParts, PeerClient, RemoteImages,
    RemoteInvoker, RemotePackages, RemoteTriggerHealth,
};
use hanshu_core::ports::{
    CancelReach, ImageBuilder as _, Invoke as _, InvokerNode, PackageError, PackageStore as _,
    TriggerHealth as _,
};
use hanshu_core::{
    AsyncPolicy, Digest, Event, FunctionConfig, FunctionId, Invocation, InvocationMode, Origin,
    Qualifier, Refusal, RequestId, Revision, RuntimeFamily, Secret, StatusCode, SystemClock,
    TimerTrigger, TriggerConfig as _, TriggerId, Verdict,
};
use http::Request;
use http_body_util::Full;
use tokio::runtime::Handle;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use crate::test_support::{
    EchoInvoker, LiveNodes, PackageMap, TwoStepImages, UnreadableStream, listen,
};

struct RunningNode {
    node: InvokerNode,
    echo: Arc<EchoInvoker>,
    packages: Arc<PackageMap>,
    _stop: DropGuard,
}

fn peers() -> PeerClient {
    PeerClient::new(Secret::new("token")).unwrap()
}

fn parts(echo: Arc<EchoInvoker>, packages: Arc<PackageMap>) -> ClusterServerParts {
    ClusterServerParts {
        token: Secret::new("token"),
        invoke: Some(echo),
        packages: Some(packages),
        images: Some(Arc::new(TwoStepImages)),
        trigger_health: Some(Arc::new(UnreadableStream)),
        general: Handle::current(),
        tasks: TaskTracker::new(),
    }
}

async fn node(name: &str) -> RunningNode {
    let id = Some(name.parse().unwrap());
    let echo = Arc::new(EchoInvoker { node: id, ..EchoInvoker::default() });
    let packages = Arc::new(PackageMap::new());
    let server = ClusterServer::new(parts(echo.clone(), packages.clone()));
    let (address, stop) = listen(server).await;
    let url = format!("http://{address}");
    let node = InvokerNode { id: name.parse().unwrap(), url, memory_mb: 1024 };
    RunningNode { node, echo, packages, _stop: stop }
}

/// Nobody listens there.
fn gone(name: &str) -> InvokerNode {
    let url = "http://127.0.0.1:1".into();
    InvokerNode { id: name.parse().unwrap(), url, memory_mb: 1024 }
}

fn invocation(function: &str, concurrency: Option<u32>, payload: Bytes) -> Invocation {
    let config = FunctionConfig {
        runtime: "Python3.10".parse().unwrap(),
        handler: "index.main_handler".into(),
        memory_mb: 128,
        timeout: Duration::from_secs(3),
        init_timeout: Duration::from_secs(65),
        concurrency,
        network: Some(false),
        async_policy: AsyncPolicy::default(),
        env: BTreeMap::from([("A".into(), "你".into())]),
    };
    let name = FunctionId { namespace: "a".parse().unwrap(), name: function.parse().unwrap() };
    Invocation {
        request_id: RequestId::new(),
        function: Arc::new(Revision {
            function: name,
            version: Qualifier::Version(3),
            digest: Digest::from_bytes([1; 32]),
            code: Digest::from_bytes([2; 32]),
            config,
        }),
        event: Event {
            origin: Origin::trigger_of(TimerTrigger::KIND, "t1".parse().unwrap()),
            payload,
        },
        mode: InvocationMode::Sync { wait_timeout: Duration::from_secs(10), tail: true },
    }
}

#[tokio::test]
async fn an_invocation_arrives_whole_and_so_does_its_outcome() {
    let echo = Arc::new(EchoInvoker::default());
    let parts = parts(echo.clone(), Arc::new(PackageMap::new()));
    let (address, _stop) = listen(ClusterServer::new(parts)).await;
    let mut target = gone("n1");
    target.url = format!("http://{address}/");
    let remote = RemoteInvoker::new(peers(), &target, Arc::new(SystemClock));

    let payload = Bytes::from(vec![b'1'; 6_291_456]);
    let sent = invocation("hello", Some(3), payload.clone());
    let outcome = remote.invoke(sent.clone()).await;
    assert_eq!(outcome.verdict, Verdict::Returned(payload));
    assert_eq!(outcome.report.log_tail.as_deref(), Some("the log's end"));
    let arrived = echo.last.lock().unwrap().take().unwrap();
    assert_eq!(arrived.request_id, sent.request_id);
    assert_eq!(arrived.function, sent.function);
    assert_eq!(arrived.event, sent.event);
    assert_eq!(arrived.mode, sent.mode);

    let outcome = remote.invoke(invocation("raises", None, Bytes::new())).await;
    assert_eq!(outcome.verdict.status(), StatusCode::UserException);
    let outcome = remote.invoke(invocation("throttled", None, Bytes::new())).await;
    assert_eq!(outcome.verdict, Verdict::Refused(Refusal::Concurrency { limit: 3 }));
}

#[tokio::test]
async fn a_cancellation_finds_the_node_that_runs_the_invocation() {
    let (one, two) = (node("n1").await, node("n2").await);
    let id = RequestId::new();
    *two.echo.runs.lock().unwrap() = Some(id);
    let balancer = Balancer::new(peers(), Arc::new(SystemClock));
    balancer.set_nodes(vec![one.node.clone(), two.node.clone()]);
    assert_eq!(balancer.cancel(id).await, CancelReach::Reached);
    assert_eq!(balancer.cancel(RequestId::new()).await, CancelReach::NotFound);
    assert_eq!(one.echo.cancelled.lock().unwrap().len(), 2);

    // With a node that cannot be asked, what is not found may still be there.
    balancer.set_nodes(vec![one.node.clone(), gone("n3"), two.node.clone()]);
    assert_eq!(balancer.cancel(id).await, CancelReach::Reached);
    assert_eq!(balancer.cancel(RequestId::new()).await, CancelReach::Unknown);
    let remote = RemoteInvoker::new(peers(), &one.node, Arc::new(SystemClock));
    assert_eq!(remote.cancel(id).await, CancelReach::NotFound);
}

#[tokio::test]
async fn an_invoker_asks_the_others_for_what_does_not_run_here() {
    let (here, there) = (node("n1").await, node("n2").await);
    let (mine, theirs) = (RequestId::new(), RequestId::new());
    *here.echo.runs.lock().unwrap() = Some(mine);
    *there.echo.runs.lock().unwrap() = Some(theirs);
    let nodes = Arc::new(LiveNodes(vec![here.node.clone(), there.node.clone()]));
    let (local, node, peers) = (here.echo.clone(), here.node.id.clone(), peers());
    let invoker = ClusterInvoker { local, node, nodes, peers };
    assert_eq!(invoker.cancel(mine).await, CancelReach::Reached);
    assert_eq!(there.echo.cancelled.lock().unwrap().len(), 0);
    assert_eq!(invoker.cancel(theirs).await, CancelReach::Reached);
    assert_eq!(invoker.cancel(RequestId::new()).await, CancelReach::NotFound);
    assert_eq!(here.echo.cancelled.lock().unwrap().len(), 3, "this node was asked once each");
    let returned = invoker.invoke(invocation("hello", None, Bytes::from_static(b"1"))).await;
    assert_eq!(returned.verdict, Verdict::Returned(Bytes::from_static(b"1")));
}

#[tokio::test]
async fn only_the_clusters_token_gets_in() {
    let server = ClusterServer::new(parts(Arc::default(), Arc::new(PackageMap::new())));
    let ask = async |token: Option<&str>, path: &str| {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        server.respond::<_, axum::body::Body>(request).await.status()
    };
    let path = format!("/internal/v1/packages/{}", Digest::from_bytes([1; 32]));
    assert_eq!(ask(None, &path).await, 401);
    assert_eq!(ask(Some("Bearer tokem"), &path).await, 401);
    assert_eq!(ask(Some("Basic token"), &path).await, 401);
    assert_eq!(ask(Some("Bearer token"), &path).await, 404);
    assert_eq!(ask(None, "/healthz").await, 200);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_passed_over() {
    let here = node("n2").await;
    let balancer = Balancer::new(peers(), Arc::new(SystemClock));
    balancer.set_nodes(vec![gone("n1"), here.node.clone()]);
    for _ in 0..3 {
        let outcome = balancer.invoke(invocation("hello", None, Bytes::from("1"))).await;
        assert_eq!(outcome.verdict, Verdict::Returned(Bytes::from("1")));
    }
    assert_eq!(here.echo.calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn without_nodes_a_call_is_refused_at_once() {
    let balancer = Balancer::new(peers(), Arc::new(SystemClock));
    let outcome = balancer.invoke(invocation("hello", None, Bytes::new())).await;
    assert!(matches!(outcome.verdict, Verdict::Refused(Refusal::Unavailable { .. })));
    balancer.set_nodes(vec![gone("n1")]);
    let outcome = balancer.invoke(invocation("hello", None, Bytes::new())).await;
    assert!(matches!(outcome.verdict, Verdict::Refused(Refusal::Unavailable { .. })));
}

#[tokio::test]
async fn a_function_with_a_limit_stays_on_one_node() {
    let nodes = [node("n1").await, node("n2").await, node("n3").await];
    let balancer = Arc::new(Balancer::new(peers(), Arc::new(SystemClock)));
    balancer.set_nodes(nodes.iter().map(|node| node.node.clone()).collect());
    let calls = (0..12).map(|_| balancer.invoke(invocation("hello", Some(2), Bytes::new())));
    let outcomes = futures_util::future::join_all(calls).await;
    let first = outcomes[0].report.node.clone();
    assert!(first.is_some() && outcomes.iter().all(|outcome| outcome.report.node == first));
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_is_not_tried_elsewhere() {
    let lost = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut first = gone("n1");
    first.url = format!("http://{}", lost.local_addr().unwrap());
    let second = node("n2").await;
    let balancer = Balancer::new(peers(), Arc::new(SystemClock));
    balancer.set_nodes(vec![first, second.node.clone()]);
    let cut = async {
        use tokio::io::AsyncReadExt as _;
        let (mut stream, _) = lost.accept().await.unwrap();
        let _ = stream.read(&mut [0; 64]).await.unwrap();
    };
    let call = balancer.invoke(invocation("hello", None, Bytes::new()));
    let (outcome, ()) = tokio::join!(call, cut);
    assert!(matches!(outcome.verdict, Verdict::Refused(Refusal::Sandbox { .. })));
    assert_eq!(second.echo.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_package_is_fetched_once_and_kept() {
    let controller = node("n1").await;
    let local = Arc::new(PackageMap::new());
    let remote = Arc::new(RemotePackages::new(peers(), &controller.node.url, local.clone()));
    let digest = Digest::from_bytes([3; 32]);
    assert!(!remote.has(&digest).await);
    assert!(matches!(remote.folder(&digest).await, Err(PackageError::Missing(_))));

    remote.put(&digest, Bytes::from("zip")).await.unwrap();
    assert!(remote.has(&digest).await && !local.has(&digest).await);
    let folders = (0..4).map(|_| remote.folder(&digest));
    for folder in futures_util::future::join_all(folders).await {
        assert!(folder.unwrap().join("index.py").is_file());
    }
    assert!(local.has(&digest).await);
    controller.packages.kept.lock().unwrap().clear();
    assert_eq!(remote.zip(&digest).await.unwrap(), "zip");

    let refused = remote.put(&digest, Bytes::from("bad")).await.unwrap_err();
    assert!(matches!(refused, PackageError::Refused(reason) if reason.contains("../x")));
}

#[tokio::test]
async fn an_unavailable_controller_is_told_apart_from_a_missing_package() {
    let local = Arc::new(PackageMap::new());
    let remote = RemotePackages::new(peers(), "http://127.0.0.1:1", local);
    let digest = Digest::from_bytes([3; 32]);
    let error = remote.folder(&digest).await.unwrap_err();
    assert!(matches!(&error, PackageError::Io(reason) if reason.contains("cannot be reached")));
}

#[tokio::test]
async fn health_problems_of_triggers_are_known_to_other_nodes() {
    let node = node("n1").await;
    let urls = vec!["http://127.0.0.1:1".to_owned(), node.node.url.clone()];
    let health = RemoteTriggerHealth::new(peers(), move || urls.clone());
    let trigger = |name: &str| TriggerId {
        function: FunctionId {
            namespace: "default".parse().unwrap(),
            name: "hello".parse().unwrap(),
        },
        name: name.parse().unwrap(),
    };
    assert_eq!(health.problem(&trigger("redis")), None);
    health.ask().await;
    assert_eq!(health.problem(&trigger("redis")).unwrap(), "the stream cannot be read");
    assert_eq!(health.problem(&trigger("timer")), None);
}

#[tokio::test]
async fn an_image_is_made_on_every_node_with_its_progress() {
    let nodes = [node("n1").await, node("n2").await];
    let urls: Vec<_> = nodes.iter().map(|node| node.node.url.clone()).collect();
    let images = RemoteImages::new(peers(), move || urls.clone());
    let told = Mutex::new(vec![]);
    let tell = |line: &str| told.lock().unwrap().push(line.to_owned());
    images.ensure(RuntimeFamily::PYTHON, &tell).await.unwrap();
    let expected = ["step 1 of 2", "step 2 of 2", "step 1 of 2", "step 2 of 2"];
    assert_eq!(*told.lock().unwrap(), expected);
    let error = images.ensure(RuntimeFamily::GO, &|_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "debootstrap is missing");
}
