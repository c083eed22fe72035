//! The listener of HTTP triggers: functions speak here, on an origin that the API never shares.
//!
//! What a request means is decided by pure functions of `hanshu_triggers::http`; here it is read,
//! run and answered, on the connection's own task.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use hanshu_core::{
    Actor, Event, HttpTrigger, INLINE_CHECK_BYTES_MAX, Origin, PAYLOAD_BYTES_MAX, Qualifier,
    RequestId, TriggerConfig as _, Verdict,
};
use hanshu_triggers::http::response::{
    FaultOwner, HttpTriggerResponse, response_to_outcome, response_to_refused_call,
};
use hanshu_triggers::http::{cors, event};
use hanshu_triggers::{FunctionCall, IntakeError, RouteLookup, RouteMatch, RouteTable};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Incoming};
use tracing::{Instrument as _, error_span};

use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::http_server::{Body, PayloadError, RequestHandler, read_payload};
use crate::metrics::{InvocationChannel, ListenerKind};
use crate::outcome_response::describe;
use crate::routes::status::health;
use crate::state::Gateway;

/// Answers the listener of HTTP triggers.
#[derive(Debug)]
pub struct HttpTriggers {
    gateway: Gateway,
}

/// A request that found its trigger.
struct MatchedRequest {
    head: http::request::Parts,
    route: RouteMatch,
    source_ip: IpAddr,
    request_id: RequestId,
    began: Instant,
}

impl HttpTriggers {
    /// All HTTP triggers of the gateway.
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }

    /// Answers one request of the client at `source_ip`.
    pub async fn respond<B>(&self, request: Request<B>, source_ip: IpAddr) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let request_id = RequestId::new();
        let span = error_span!("http_trigger", %request_id);
        let response = self.route(request, source_ip, request_id).instrument(span).await;
        self.gateway.metrics().answered(ListenerKind::Http, response.status());
        response
    }

    async fn route<B>(
        &self,
        request: Request<B>,
        source_ip: IpAddr,
        request_id: RequestId,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let routes = self.gateway.triggers.routes();
        let (method, path) = (head.method.as_str(), head.uri.path());
        if let Some(preflight) = cors::preflight(&routes, method, path, &head.headers) {
            return finish_response(preflight, &head.headers, request_id);
        }
        let route = match find(&routes, &head.method, path) {
            Ok(route) => route,
            Err(RouteLookup::NotFound) if path == "/healthz" => return health_response(request_id),
            Err(missed) => {
                return finish_response(
                    unrouted_response(missed, request_id),
                    &head.headers,
                    request_id,
                );
            }
        };
        let key = head.headers.get(event::KEY_HEADER).map(HeaderValue::as_bytes);
        if !route.admits(key) {
            let title = "this path asks for its key in the header x-hanshu-key";
            let answer = HttpTriggerResponse::problem(
                401,
                FaultOwner::Platform,
                "unauthenticated",
                title,
                request_id,
            );
            return finish_response(answer, &head.headers, request_id);
        }
        let found = MatchedRequest { head, route, source_ip, request_id, began };
        match read_payload(body, PAYLOAD_BYTES_MAX).await {
            Ok(body) => self.run(found, body).await,
            Err(error) => {
                self.gateway.metrics().invoked(
                    InvocationChannel::Http,
                    None,
                    found.began.elapsed(),
                );
                unread_body_response(error, &found.head.headers, request_id)
            }
        }
    }

    async fn run(&self, found: MatchedRequest, body: Bytes) -> Response<Body> {
        let MatchedRequest { head, route, source_ip, request_id, began } = found;
        let function = route.route.id.function.clone();
        let name = route.route.id.name.clone();
        let (headers, payload) = if body.len() <= INLINE_CHECK_BYTES_MAX {
            let payload = make_event(&head, (&body, source_ip, request_id), &route);
            (head.headers, payload)
        } else {
            let made = self.gateway.general.spawn_blocking(move || {
                let payload = make_event(&head, (&body, source_ip, request_id), &route);
                (head.headers, payload)
            });
            match made.await {
                Ok(made) => made,
                Err(_) => {
                    let answer = response_to_refused_call(&IntakeError::Stopping, request_id);
                    return finish_response(answer, &HeaderMap::new(), request_id);
                }
            }
        };
        let call = FunctionCall {
            request_id,
            function,
            qualifier: Qualifier::Latest,
            event: Event { origin: Origin::trigger_of(HttpTrigger::KIND, name), payload },
            tail: false,
        };
        let answered = self.gateway.intake.call(&Actor::trigger(Some(source_ip)), call).await;
        let verdict = answered.as_ref().ok().map(|answered| &answered.outcome.verdict);
        self.gateway.metrics().invoked(InvocationChannel::Http, verdict, began.elapsed());
        match answered {
            Err(error) => {
                finish_response(response_to_refused_call(&error, request_id), &headers, request_id)
            }
            Ok(answered) => {
                let report = answered.outcome.report.clone();
                let answer = self.answer(answered.outcome, request_id).await;
                let mut response = finish_response(answer, &headers, request_id);
                describe(response.headers_mut(), &report);
                response
            }
        }
    }

    /// What an outcome means; a large one is read on the general runtime.
    async fn answer(
        &self,
        outcome: hanshu_core::Outcome,
        request_id: RequestId,
    ) -> HttpTriggerResponse {
        let large = match &outcome.verdict {
            Verdict::Returned(json) => INLINE_CHECK_BYTES_MAX < json.len(),
            Verdict::Failed(_) | Verdict::Refused(_) => false,
        };
        if !large {
            return response_to_outcome(&outcome, request_id);
        }
        let read =
            self.gateway.general.spawn_blocking(move || response_to_outcome(&outcome, request_id));
        read.await.unwrap_or_else(|_| response_to_refused_call(&IntakeError::Stopping, request_id))
    }
}

impl RequestHandler for HttpTriggers {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        self.respond(request, peer.ip()).await
    }
}

fn make_event(
    head: &http::request::Parts,
    (body, source_ip, request_id): (&Bytes, IpAddr, RequestId),
    route: &RouteMatch,
) -> Bytes {
    let request = event::HttpTriggerRequest {
        method: head.method.as_str(),
        raw_path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        body,
        source_ip,
        request_id,
    };
    event::http_event_payload(&request, route)
}

/// The trigger for a request. `HEAD` goes where `GET` goes, unless a trigger names it: the answer
/// is the same, and its body is left out on the way (RFC 9110, 9.3.2).
fn find(routes: &RouteTable, method: &Method, path: &str) -> Result<RouteMatch, RouteLookup> {
    let found = match routes.find(method.as_str(), path) {
        RouteLookup::MethodNotAllowed(_) if method == Method::HEAD => routes.find("GET", path),
        found => found,
    };
    match found {
        RouteLookup::Found(route) => Ok(route),
        missed @ (RouteLookup::MethodNotAllowed(_)
        | RouteLookup::NotFound
        | RouteLookup::BadPath) => Err(missed),
    }
}

fn unrouted_response(missed: RouteLookup, request_id: RequestId) -> HttpTriggerResponse {
    let problem = |status, code, title| {
        HttpTriggerResponse::problem(status, FaultOwner::Platform, code, title, request_id)
    };
    match missed {
        RouteLookup::Found(_) | RouteLookup::NotFound => {
            problem(404, "no_route", "nothing answers at this path")
        }
        RouteLookup::BadPath => problem(400, "bad_path", "the path does not decode to UTF-8"),
        RouteLookup::MethodNotAllowed(methods) => {
            let title = "this path does not answer that method";
            let mut answer = problem(405, "method_not_allowed", title);
            if let Ok(allow) = HeaderValue::try_from(methods.join(", ")) {
                answer.headers.insert(ALLOW, allow);
            }
            answer
        }
    }
}

fn unread_body_response(
    error: PayloadError,
    request: &HeaderMap,
    request_id: RequestId,
) -> Response<Body> {
    let (status, code, title) = match error {
        PayloadError::TooLarge => (413, "event_too_large", "the request is too large"),
        PayloadError::Stalled => (408, "body_timeout", "the body did not arrive in time"),
        PayloadError::Broken => (400, "bad_body", "the body could not be read to its end"),
    };
    let answer =
        HttpTriggerResponse::problem(status, FaultOwner::Platform, code, title, request_id);
    let mut response = finish_response(answer, request, request_id);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn finish_response(
    mut answer: HttpTriggerResponse,
    request: &HeaderMap,
    request_id: RequestId,
) -> Response<Body> {
    cors::allow_any_origin(request, &mut answer);
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(REQUEST_ID, id_value(request_id));
    response.headers_mut().insert(FAULT, HeaderValue::from_static(answer.fault.as_str()));
    response
}

fn health_response(request_id: RequestId) -> Response<Body> {
    let text = serde_json::to_vec(&health()).unwrap_or_default();
    let mut answer = HttpTriggerResponse::empty(200, FaultOwner::None);
    answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.body = text.into();
    finish_response(answer, &HeaderMap::new(), request_id)
}
