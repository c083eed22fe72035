//! `POST /v1/functions/{name}/invocations`, on the data plane: no axum, no task of its own.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use hanshu_api::wire::InvocationAccepted;
use hanshu_core::{
    ASYNC_PAYLOAD_BYTES_MAX, Actor, Event, FunctionId, FunctionName, Namespace, Origin,
    PAYLOAD_BYTES_MAX, Permission, PermissionTarget, Qualifier, RequestId, authorize,
};
use hanshu_triggers::FunctionCall;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Body as HttpBody;
use percent_encoding::percent_decode_str;
use tracing::Instrument as _;

use crate::headers::{FAULT, LOG, REQUEST_ID, id_value};
use crate::http_server::{Body, read_payload};
use crate::metrics::InvocationChannel;
use crate::outcome_response::render;
use crate::problem::{Problem, internal};
use crate::state::Gateway;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";

/// The path's function name, if the path is that of invocations.
pub(crate) fn function_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/functions/")?.strip_suffix("/invocations")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Runs or queues the event in the body.
pub(crate) async fn invoke<B>(
    gateway: &Gateway,
    actor: &Actor,
    request: Request<B>,
    (request_id, began): (RequestId, Instant),
) -> Result<Response<Body>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    let queue = prefers_async(&head.headers);
    let limit = if queue { ASYNC_PAYLOAD_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
    let mut call = call(head.uri.path(), head.uri.query().unwrap_or_default(), request_id)?;
    call.tail = head.headers.get(LOG).is_some_and(|value| value == "tail")
        && authorize(actor, Permission::ReadLogs, PermissionTarget::Function(&call.function))
            .is_ok();
    let payload = read_payload(body, limit).await;
    call.event.payload =
        payload.map_err(|error| Problem::payload(error, "event_too_large", limit))?;
    if queue {
        let accepted = accept(gateway, actor.clone(), call).await;
        let took = began.elapsed();
        match &accepted {
            Ok(_) => gateway.metrics().queued(took),
            Err(_) => gateway.metrics().invoked(InvocationChannel::Async, None, took),
        }
        return accepted;
    }
    let answered = gateway.intake.call(actor, call).await;
    let verdict = answered.as_ref().ok().map(|answered| &answered.outcome.verdict);
    gateway.metrics().invoked(InvocationChannel::Sync, verdict, began.elapsed());
    Ok(render(answered?.outcome, request_id))
}

fn call(path: &str, query: &str, request_id: RequestId) -> Result<FunctionCall, Problem> {
    let name = decode(function_of(path).unwrap_or_default());
    let name: FunctionName = name.parse()?;
    let mut namespace = Namespace::default();
    let mut qualifier = Qualifier::Latest;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "namespace" => namespace = decode(value).parse()?,
            "qualifier" => qualifier = decode(value).parse()?,
            _ => return Err(Problem::value("query", key, "`namespace` or `qualifier`")),
        }
    }
    let event = Event { origin: Origin::Direct, payload: Bytes::new() };
    let function = FunctionId { namespace, name };
    Ok(FunctionCall { request_id, function, qualifier, event, tail: false })
}

fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { text.into() }
}

/// Queues the event. The queue's database lives on the general runtime.
async fn accept(
    gateway: &Gateway,
    actor: Actor,
    call: FunctionCall,
) -> Result<Response<Body>, Problem> {
    let request_id = call.request_id;
    let intake = gateway.intake.clone();
    let push = async move { intake.accept(&actor, call, None).await }.in_current_span();
    gateway.general.spawn(push).await.map_err(|error| internal(&error))??;
    let body = serde_json::to_vec(&InvocationAccepted { request_id }).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(body)));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REQUEST_ID, id_value(request_id));
    headers.insert(FAULT, HeaderValue::from_static("none"));
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/invocations/{request_id}")) {
        headers.insert(LOCATION, location);
    }
    Ok(response)
}

/// RFC 7240: preferences in a list, each perhaps with parameters, in one header or several.
fn prefers_async(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next())
        .any(|name| name.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, query: &str) -> Result<String, String> {
        call(path, query, RequestId::new())
            .map(|call| format!("{}@{}", call.function, call.qualifier))
            .map_err(|problem| problem.body(RequestId::new()).detail)
    }

    #[test]
    fn a_call_names_function_namespace_and_qualifier() {
        let path = "/v1/functions/he%6Clo/invocations";
        assert_eq!(read(path, "").unwrap(), "default/hello@$LATEST");
        assert_eq!(read(path, "qualifier=%24LATEST&namespace=a").unwrap(), "a/hello@$LATEST");
        assert_eq!(read(path, "qualifier=3").unwrap(), "default/hello@3");
        assert!(read(path, "qualifier=x").unwrap_err().contains("`qualifier` is `x`"));
        assert!(read(path, "nmespace=x").unwrap_err().contains("`query` is `nmespace`"));
        assert!(read("/v1/functions/a/invocations", "").unwrap_err().contains("function name"));
    }

    #[test]
    fn only_the_path_of_invocations_is_theirs() {
        assert_eq!(function_of("/v1/functions/hello/invocations"), Some("hello"));
        for other in ["/v1/functions/hello", "/v1/functions/a/b/invocations", "/invocations"] {
            assert_eq!(function_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_preference_is_found_in_any_list() {
        let prefers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            prefers_async(&headers)
        };
        assert!(prefers(&["respond-async"]));
        assert!(prefers(&["wait=10, Respond-Async; x=1"]));
        assert!(prefers(&["return=minimal", "respond-async"]));
        assert!(!prefers(&["return=minimal"]) && !prefers(&[]) && !prefers(&["respond-async-x"]));
    }
}
