//! Properties of every HTTP request, set of triggers and function's answer: the fuzz targets
//! `http_event` and `http_answer`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a property that does not hold must fail; this is no part of the program"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hanshu_core::{
    FunctionId, HttpAuth, HttpTrigger, Namespace, Outcome, Report, RequestId, Timestamp, Trigger,
    TriggerId, TriggerSpec, Verdict,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use super::cors::preflight;
use super::event::{HttpTriggerRequest, KEY_HEADER, http_event_payload};
use super::path_pattern::{PathPattern, PathSegment};
use super::response::{FaultOwner, HttpTriggerResponse, response_to_outcome};
use super::route::{RouteLookup, RouteMatch, RouteTable};

/// The most triggers that are read from the input.
const TRIGGERS_MAX: usize = 6;
/// JSON makes at most six bytes of one, as in `\u0000`; a replaced byte becomes three.
const GROWTH_MAX: usize = 6;
/// Bytes of an event besides what the client sent.
const FRAME_BYTES_MAX: usize = 1_024;

/// A request and the triggers that it is matched against.
struct HttpEventCase<'a> {
    method: String,
    triggers: Vec<Trigger>,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: &'a [u8],
}

/// `text` has, a line each: the method; paths of triggers with their methods before them, such as
/// `GET,PUT/hello/{name}`, separated by blanks; the request's path; its query; headers; an empty
/// line. The rest is the body.
///
/// # Panics
/// A property does not hold.
pub fn http_event(text: &[u8]) {
    let case = HttpEventCase::read(text);
    let table = RouteTable::compile(&case.triggers);
    let found = table.find(&case.method, &case.path);
    check_order_independence(&case, &found);
    check_methods(&case, &table, &found);
    match found {
        RouteLookup::Found(found) => {
            check_round_trip(&case, &table, &found);
            check_event(&case, &found);
        }
        RouteLookup::MethodNotAllowed(methods) => assert!(!methods.contains(&case.method)),
        RouteLookup::NotFound => {}
        RouteLookup::BadPath => {
            let decoded = percent_decode_str(&case.path).decode_utf8();
            assert!(decoded.is_err(), "`{}` is UTF-8", case.path);
        }
    }
}

impl<'a> HttpEventCase<'a> {
    fn read(text: &'a [u8]) -> Self {
        let mut rest = text;
        let mut line = || {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            line
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let method = text(line());
        let paths = text(line());
        let triggers = paths.split(' ').take(TRIGGERS_MAX).enumerate().map(trigger).collect();
        let path = text(line());
        let query = Some(text(line())).filter(|query| !query.is_empty());
        let mut headers = HeaderMap::new();
        loop {
            let line = line();
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
            let (name, value) = line.split_at(colon);
            let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                headers.append(name, value);
            }
        }
        Self { method, triggers, path, query, headers, body: rest }
    }
}

fn trigger((index, text): (usize, &str)) -> Trigger {
    let (methods, path) = text.split_at(text.find('/').unwrap_or(0));
    let methods = methods.split(',').filter(|method| !method.is_empty());
    let spec = TriggerSpec::new(HttpTrigger {
        path: path.into(),
        methods: methods.map(Into::into).collect(),
        auth: HttpAuth::None,
        key: None,
    });
    let function = FunctionId {
        namespace: Namespace::default(),
        name: "hello".parse().expect("a function's name"),
    };
    let name = format!("trigger-{index}").parse().expect("a trigger's name");
    Trigger { id: TriggerId { function, name }, spec, enabled: true }
}

fn check_order_independence(case: &HttpEventCase<'_>, found: &RouteLookup) {
    let mut triggers = case.triggers.clone();
    triggers.reverse();
    let again = RouteTable::compile(&triggers).find(&case.method, &case.path);
    match (found, &again) {
        (RouteLookup::Found(one), RouteLookup::Found(other)) => {
            assert_eq!(one.route.id, other.route.id);
        }
        (RouteLookup::MethodNotAllowed(one), RouteLookup::MethodNotAllowed(other)) => {
            assert_eq!(one, other);
        }
        (RouteLookup::NotFound, RouteLookup::NotFound)
        | (RouteLookup::BadPath, RouteLookup::BadPath) => {}
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

fn check_methods(case: &HttpEventCase<'_>, table: &RouteTable, found: &RouteLookup) {
    let methods = table.methods(&case.path);
    match found {
        RouteLookup::Found(found) => {
            let methods = methods.expect("a path that was found has methods");
            assert!(methods.is_empty() || methods.contains(&case.method));
            assert!(found.admits(None), "anybody may call");
        }
        RouteLookup::MethodNotAllowed(allowed) => assert_eq!(methods.as_ref(), Some(allowed)),
        RouteLookup::NotFound | RouteLookup::BadPath => assert_eq!(methods, None),
    }
    if let Some(answer) = preflight(table, &case.method, &case.path, &case.headers) {
        assert_eq!((answer.status, case.method.as_str()), (204, "OPTIONS"));
    }
}

/// The parameters, put into the trigger's path, lead to the same trigger and parameters.
fn check_round_trip(case: &HttpEventCase<'_>, table: &RouteTable, found: &RouteMatch) {
    let pattern = PathPattern::parse(&found.route.path).expect("it was read before");
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = String::new();
    for segment in &pattern.segments {
        path.push('/');
        match segment {
            PathSegment::Literal(text) => path.push_str(&encode(text)),
            PathSegment::Name(name) => {
                let value = found.parameters.iter().find(|(each, _)| each == name);
                path.push_str(&encode(&value.expect("each name has a value").1));
            }
        }
    }
    let RouteLookup::Found(again) = table.find(&case.method, &path) else {
        panic!("`{path}` is not found, `{}` is", case.path)
    };
    assert_eq!((&again.route.id, &again.parameters), (&found.route.id, &found.parameters));
}

/// The event is JSON with everything that the request had, within its size limit.
fn check_event(case: &HttpEventCase<'_>, found: &RouteMatch) {
    let request = HttpTriggerRequest {
        method: &case.method,
        raw_path: &case.path,
        query: case.query.as_deref(),
        headers: &case.headers,
        body: &Bytes::copy_from_slice(case.body),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        request_id: RequestId::new(),
    };
    let json = http_event_payload(&request, found);
    let event: Value = serde_json::from_slice(&json).expect("an event is JSON");

    let text = event["body"].as_str().expect("a body is text");
    let body = match event["isBase64Encoded"].as_bool() {
        Some(true) => STANDARD.decode(text).expect("base64, as it says"),
        Some(false) => text.as_bytes().to_vec(),
        None => panic!("an event says how its body is written"),
    };
    assert_eq!(body, case.body);
    assert_eq!(event["path"], *case.path);
    assert_eq!(event["httpMethod"], *case.method);
    for (name, value) in &found.parameters {
        assert_eq!(event["pathParameters"][&**name], *value.as_str());
    }
    let names = event["headers"].as_object().expect("headers are an object");
    assert!(!names.contains_key(KEY_HEADER.as_str()) && !names.contains_key("connection"));
    assert!(names.keys().all(|name| case.headers.contains_key(name)));

    let pairs = case.query.iter().flat_map(|query| query.split('&'));
    let values = event["queryString"].as_object().expect("the query is an object").values();
    let values = values.map(|value| value.as_array().map_or(1, Vec::len));
    assert_eq!(values.sum::<usize>(), pairs.filter(|pair| !pair.is_empty()).count());

    let headers = case.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 8);
    let parts = [&found.route.path, case.path.as_str(), case.query.as_deref().unwrap_or("")];
    let text = parts.iter().map(|part| part.len()).sum::<usize>() + 2 * case.method.len();
    let values = found.parameters.iter().map(|(name, value)| name.len() + value.len() + 8);
    let sent = text + headers.sum::<usize>() + values.sum::<usize>() + case.body.len();
    assert!(json.len() <= GROWTH_MAX * sent + FRAME_BYTES_MAX, "{} of {sent}", json.len());
}

/// `json` is what a function returned. The client gets it as it is, or the response that it
/// describes, or an error; never a header that belongs to the connection or to the platform.
///
/// # Panics
/// A property does not hold.
pub fn http_answer(json: &[u8]) {
    let json = Bytes::copy_from_slice(json);
    let report = Report {
        started_at: Timestamp::UNIX_EPOCH,
        duration: Duration::ZERO,
        cold: false,
        init: None,
        memory_bytes: 0,
        node: None,
        log_tail: None,
    };
    let outcome = Outcome { verdict: Verdict::Returned(json.clone()), report };
    let response = response_to_outcome(&outcome, RequestId::new());
    assert!((200..=599).contains(&response.status));
    for name in ["connection", "transfer-encoding", "content-length", "x-fault", "x-request-id"] {
        assert!(!response.headers.contains_key(name), "{name}");
    }
    assert!(!matches!(response.status, 204 | 304) || response.body.is_empty());
    match response.fault {
        FaultOwner::None => assert_eq!(response.code, None),
        FaultOwner::Function => {
            assert_eq!((response.status, response.code), (502, Some("invalid_response")));
        }
        FaultOwner::Platform => panic!("what a function returns is never the platform's fault"),
    }
    if let Ok(value) = serde_json::from_slice::<Value>(&json) {
        check_described_response(&json, &value, &response);
    }
}

fn check_described_response(json: &Bytes, value: &Value, response: &HttpTriggerResponse) {
    let as_it_is =
        response.status == 200 && response.body == *json && response.fault == FaultOwner::None;
    let status = value.get("statusCode").filter(|status| !status.is_null());
    let Some(status) = status else {
        assert!(as_it_is, "it says no status, but {}", response.status);
        return;
    };
    // Keys that come twice are no answer's, and not seen in a tree.
    let plain = value.get("headers").is_none() && value.get("isBase64Encoded").is_none();
    let status = status.as_u64().filter(|status| (200..=599).contains(status));
    if let (true, Some(status), Some(body)) = (plain, status, value["body"].as_str()) {
        let empty = matches!(status, 204 | 304);
        let same =
            u64::from(response.status) == status && (empty || response.body == body.as_bytes());
        assert!(same || as_it_is, "{} instead of {status}", response.status);
    }
    if status.is_none() {
        assert!(as_it_is || response.fault == FaultOwner::Function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn the_properties_of_http_events_hold_for_the_corpus() {
        replay("http_event", http_event);
    }

    #[test]
    fn the_properties_of_http_answers_hold_for_the_corpus() {
        replay("http_answer", http_answer);
    }
}
