//! A gateway over implementations of its ports for tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_api::wire::NotReady;
use hanshu_controller::{AccessKeys, Controller, MasterKey};
use hanshu_core::ports::TriggerHealth;
use hanshu_core::{FunctionId, ManualClock, Namespace, TriggerId};
use hanshu_gateway::{
    Api, Body, CheckReadiness, FunctionApi, Gateway, GatewayOptions, GatewayParts,
    HttpServerOptions, HttpTriggers, RequestHandler, serve,
};
use hanshu_triggers::{EventIntake, IntakeOptions, TriggersFeed};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::invoker::Echo;
use crate::test_support::{
    FixedHistory, Images, MemoryJournal, MemoryPackages, MemoryQueue, MemoryRegistry, start,
};

pub(crate) const CODE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A gateway over implementations of its ports for tests.
pub(crate) struct World {
    pub(crate) api: Arc<Api>,
    pub(crate) http: Arc<HttpTriggers>,
    /// The API as functions have it.
    pub(crate) functions: FunctionApi,
    pub(crate) echo: Arc<Echo>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) history: Arc<FixedHistory>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) registry: Arc<MemoryRegistry>,
    pub(crate) packages: Arc<MemoryPackages>,
    pub(crate) not_ready: Arc<Reasons>,
    controller: Arc<Controller>,
    feed: TriggersFeed,
    credentials: String,
}

#[derive(Default)]
pub(crate) struct Reasons(pub(crate) Mutex<Vec<NotReady>>);

#[async_trait]
impl CheckReadiness for Reasons {
    async fn reasons(&self) -> Vec<NotReady> {
        self.0.lock().unwrap().clone()
    }
}

/// The stream of `default/hello/redis` is unavailable.
pub(crate) struct UnavailableStream;

impl TriggerHealth for UnavailableStream {
    fn problem(&self, trigger: &TriggerId) -> Option<String> {
        (trigger.name.as_str() == "redis").then(|| "the stream cannot be read".into())
    }

    fn problems(&self) -> Vec<(TriggerId, String)> {
        let name = "hello".parse().unwrap();
        let function = FunctionId { namespace: Namespace::default(), name };
        let id = TriggerId { function, name: "redis".parse().unwrap() };
        let health_problem = self.problem(&id).unwrap();
        vec![(id, health_problem)]
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl World {
    pub(crate) async fn new() -> Self {
        let registry = Arc::new(MemoryRegistry::default());
        let packages = Arc::new(MemoryPackages::new());
        let clock = Arc::new(ManualClock::at(start()));
        let access = Arc::new(AccessKeys::new(MasterKey::generate()));
        let key = access.create(&*registry, &*clock, None).await.unwrap();
        let controller = Arc::new(Controller::new(
            registry.clone(),
            packages.clone(),
            Arc::new(Images),
            access,
            clock.clone(),
        ));
        let echo = Arc::new(Echo::default());
        let queue = Arc::new(MemoryQueue::default());
        let journal = Arc::new(MemoryJournal::default());
        let history = Arc::new(FixedHistory::default());
        let intake = Arc::new(EventIntake {
            catalog: controller.catalog().clone(),
            invoke: echo.clone(),
            queue: queue.clone(),
            clock: clock.clone(),
            general: Handle::current(),
            options: IntakeOptions::default(),
        });
        let (feed, triggers) = TriggersFeed::new();
        let not_ready = Arc::new(Reasons::default());
        let gateway = Gateway::new(GatewayParts {
            controller: controller.clone(),
            intake,
            queue: queue.clone(),
            history: history.clone(),
            journal: journal.clone(),
            triggers,
            readiness: not_ready.clone(),
            trigger_health: Arc::new(UnavailableStream),
            prometheus: None,
            clock,
            general: Handle::current(),
            tasks: TaskTracker::new(),
            options: GatewayOptions {
                http_url: "http://127.0.0.1:9080".into(),
                timezone: "Asia/Shanghai".into(),
            },
        });
        let credentials = basic(&key.id, key.secret.expose());
        Self {
            api: Arc::new(Api::new(gateway.clone())),
            http: Arc::new(HttpTriggers::new(gateway.clone())),
            functions: FunctionApi::new(gateway),
            echo,
            queue,
            history,
            journal,
            registry,
            packages,

            not_ready,
            controller,
            feed,
            credentials,
        }
    }

    /// With these functions deployed, none with triggers.
    pub(crate) async fn with(functions: &[&str]) -> Self {
        let world = Self::new().await;
        for function in functions {
            world.deploy(function, json!([])).await;
        }
        world
    }

    pub(crate) async fn deploy(&self, function: &str, triggers: Value) -> Value {
        self.packages.kept.lock().unwrap().insert(CODE.parse().unwrap(), Bytes::new());
        let wanted = json!({
            "runtime": "python", "handler": "index.main_handler", "code": CODE,
            "triggers": triggers,
        });
        let path = format!("/v1/functions/{function}");
        let answered = self.send("PUT", &path, &[], wanted.to_string()).await;
        assert_eq!(answered.status, 200, "{}", answered.text());
        self.feed.replace(self.controller.catalog().snapshot().triggers.clone());
        answered.json()
    }

    /// Asks the API, with the right key.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answered {
        let request = request(method, path, headers, body);
        let mut request = request.map(Full::new);
        let key = self.credentials.parse().unwrap();
        request.headers_mut().entry("authorization").or_insert(key);
        Answered::read(self.api.respond(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send("GET", path, &[], "").await
    }

    /// Asks a trigger.
    pub(crate) async fn web(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answered {
        let request = request(method, path, headers, body).map(Full::new);
        Answered::read(self.http.respond(request, [10, 0, 0, 7].into()).await).await
    }

    pub(crate) fn authorization(&self) -> &str {
        &self.credentials
    }

    pub(crate) fn counter(&self) -> i64 {
        self.registry.counter()
    }
}

/// Serves on a port of its own until the token is dropped.
pub(crate) async fn listen<A: RequestHandler>(
    answer: Arc<A>,
) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let options = HttpServerOptions::default();
    let serving = serve(listener, answer, options, stop.clone(), tasks.clone());
    tasks.spawn(serving);
    (address, stop.drop_guard())
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    use base64::Engine as _;
    let text = format!("{id}:{secret}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

impl Answered {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON, with the request id checked against the header and then masked.
    pub(crate) fn masked(&self) -> String {
        let mut json = self.json();
        if let Some(id) = json.get_mut("requestId") {
            assert_eq!(id, self.header("x-request-id"));
            *id = "…".into();
        }
        serde_json::to_string_pretty(&json).unwrap()
    }
}
