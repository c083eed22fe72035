//! What holds of every HTTP request, set of triggers and function's answer: the fuzzer's targets
//! `http_event` and `http_answer`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what does not hold must be seen; this is no part of the program"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hanshu_core::{
    FunctionId, HttpAuth, Namespace, Outcome, Report, RequestId, Timestamp, Trigger, TriggerId,
    TriggerSpec, Verdict,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use super::answer::{Fault, HttpAnswer, answer, not_routed};
use super::cors::preflight;
use super::event::{KEY_HEADER, Request, event};
use super::pattern::{Pattern, Segment};
use super::route::{Lookup, RouteMatch, RouteTable};

/// The most triggers that are read from the input.
const TRIGGERS_MAX: usize = 6;
/// JSON makes at most six bytes of one, as in `\u0000`; a replaced byte becomes three.
const GROWTH_MAX: usize = 6;
/// What an event has besides what the client sent.
const FRAME_BYTES_MAX: usize = 1_024;

/// A request, and the triggers that it meets.
struct Given<'a> {
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
/// Something does not hold.
pub fn http_event(text: &[u8]) {
    let given = Given::read(text);
    let table = RouteTable::compile(&given.triggers);
    let found = table.find(&given.method, &given.path);
    is_the_same_in_any_order(&given, &found);
    agrees_on_methods(&given, &table, &found);
    assert_eq!(
        not_routed(&found, RequestId::new()).is_none(),
        matches!(found, Lookup::Found(_)),
        "there is an answer for what was not found, and only for that"
    );
    match found {
        Lookup::Found(found) => {
            comes_back(&given, &table, &found);
            is_told(&given, &found);
        }
        Lookup::MethodNotAllowed(methods) => assert!(!methods.contains(&given.method)),
        Lookup::NotFound => {}
        Lookup::BadPath => {
            let decoded = percent_decode_str(&given.path).decode_utf8();
            assert!(decoded.is_err(), "`{}` is UTF-8", given.path);
        }
    }
}

impl<'a> Given<'a> {
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
    let spec = TriggerSpec::Http {
        path: path.into(),
        methods: methods.map(Into::into).collect(),
        auth: HttpAuth::None,
        key: None,
    };
    let function = FunctionId {
        namespace: Namespace::default(),
        name: "hello".parse().expect("a function's name"),
    };
    let name = format!("trigger-{index}").parse().expect("a trigger's name");
    Trigger { id: TriggerId { function, name }, spec, enabled: true }
}

fn is_the_same_in_any_order(given: &Given<'_>, found: &Lookup) {
    let mut triggers = given.triggers.clone();
    triggers.reverse();
    let again = RouteTable::compile(&triggers).find(&given.method, &given.path);
    match (found, &again) {
        (Lookup::Found(one), Lookup::Found(other)) => assert_eq!(one.route.id, other.route.id),
        (Lookup::MethodNotAllowed(one), Lookup::MethodNotAllowed(other)) => assert_eq!(one, other),
        (Lookup::NotFound, Lookup::NotFound) | (Lookup::BadPath, Lookup::BadPath) => {}
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

fn agrees_on_methods(given: &Given<'_>, table: &RouteTable, found: &Lookup) {
    let methods = table.methods(&given.path);
    match found {
        Lookup::Found(found) => {
            let methods = methods.expect("a path that was found has methods");
            assert!(methods.is_empty() || methods.contains(&given.method));
            assert!(found.admits(None), "anybody may call");
        }
        Lookup::MethodNotAllowed(allowed) => assert_eq!(methods.as_ref(), Some(allowed)),
        Lookup::NotFound | Lookup::BadPath => assert_eq!(methods, None),
    }
    if let Some(answer) = preflight(table, &given.method, &given.path, &given.headers) {
        assert_eq!((answer.status, given.method.as_str()), (204, "OPTIONS"));
    }
}

/// The values, put into the trigger's path, lead to the same trigger with the same values.
fn comes_back(given: &Given<'_>, table: &RouteTable, found: &RouteMatch) {
    let pattern = Pattern::parse(&found.route.path).expect("it was read before");
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = String::new();
    for segment in &pattern.segments {
        path.push('/');
        match segment {
            Segment::Literal(text) => path.push_str(&encode(text)),
            Segment::Name(name) => {
                let value = found.parameters.iter().find(|(each, _)| each == name);
                path.push_str(&encode(&value.expect("each name has a value").1));
            }
        }
    }
    let Lookup::Found(again) = table.find(&given.method, &path) else {
        panic!("`{path}` is not found, `{}` is", given.path)
    };
    assert_eq!((&again.route.id, &again.parameters), (&found.route.id, &found.parameters));
}

/// The event is JSON that says everything back, and is no longer than it may be.
fn is_told(given: &Given<'_>, found: &RouteMatch) {
    let request = Request {
        method: &given.method,
        raw_path: &given.path,
        query: given.query.as_deref(),
        headers: &given.headers,
        body: &Bytes::copy_from_slice(given.body),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        request_id: RequestId::new(),
    };
    let json = event(&request, found);
    let told: Value = serde_json::from_slice(&json).expect("an event is JSON");

    let text = told["body"].as_str().expect("a body is text");
    let body = match told["isBase64Encoded"].as_bool() {
        Some(true) => STANDARD.decode(text).expect("it says so"),
        Some(false) => text.as_bytes().to_vec(),
        None => panic!("an event says how its body is written"),
    };
    assert_eq!(body, given.body);
    assert_eq!(told["path"], *given.path);
    assert_eq!(told["httpMethod"], *given.method);
    for (name, value) in &found.parameters {
        assert_eq!(told["pathParameters"][&**name], *value.as_str());
    }
    let names = told["headers"].as_object().expect("headers are an object");
    assert!(!names.contains_key(KEY_HEADER.as_str()) && !names.contains_key("connection"));
    assert!(names.keys().all(|name| given.headers.contains_key(name)));

    let pairs = given.query.iter().flat_map(|query| query.split('&'));
    let values = told["queryString"].as_object().expect("the query is an object").values();
    let values = values.map(|value| value.as_array().map_or(1, Vec::len));
    assert_eq!(values.sum::<usize>(), pairs.filter(|pair| !pair.is_empty()).count());

    let headers = given.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 8);
    let parts = [&found.route.path, given.path.as_str(), given.query.as_deref().unwrap_or("")];
    let text = parts.iter().map(|part| part.len()).sum::<usize>() + 2 * given.method.len();
    let values = found.parameters.iter().map(|(name, value)| name.len() + value.len() + 8);
    let sent = text + headers.sum::<usize>() + values.sum::<usize>() + given.body.len();
    assert!(json.len() <= GROWTH_MAX * sent + FRAME_BYTES_MAX, "{} of {sent}", json.len());
}

/// Takes `json` for what a function returned. The client gets it as it is, or the answer that it
/// describes, or hears that it is none; never a header that is the connection's or ours.
///
/// # Panics
/// Something does not hold.
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
    let given = answer(&outcome, RequestId::new());
    assert!((200..=599).contains(&given.status));
    for name in ["connection", "transfer-encoding", "content-length", "x-fault", "x-request-id"] {
        assert!(!given.headers.contains_key(name), "{name}");
    }
    assert!(!matches!(given.status, 204 | 304) || given.body.is_empty());
    match given.fault {
        Fault::None => assert_eq!(given.code, None),
        Fault::Function => assert_eq!((given.status, given.code), (502, Some("invalid_response"))),
        Fault::Platform => panic!("what a function returns is never the platform's fault"),
    }
    if let Ok(value) = serde_json::from_slice::<Value>(&json) {
        is_as_described(&json, &value, &given);
    }
}

fn is_as_described(json: &Bytes, value: &Value, given: &HttpAnswer) {
    let as_it_is = given.status == 200 && given.body == *json && given.fault == Fault::None;
    let status = value.get("statusCode").filter(|status| !status.is_null());
    let Some(status) = status else {
        assert!(as_it_is, "it says no status, but {}", given.status);
        return;
    };
    // Keys that come twice are no answer's, and not seen in a tree.
    let plain = value.get("headers").is_none() && value.get("isBase64Encoded").is_none();
    let status = status.as_u64().filter(|status| (200..=599).contains(status));
    if let (true, Some(status), Some(body)) = (plain, status, value["body"].as_str()) {
        let empty = matches!(status, 204 | 304);
        let same = u64::from(given.status) == status && (empty || given.body == body.as_bytes());
        assert!(same || as_it_is, "{} instead of {status}", given.status);
    }
    if status.is_none() {
        assert!(as_it_is || given.fault == Fault::Function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn what_holds_of_http_events_holds_of_the_corpus() {
        replay("http_event", http_event);
    }

    #[test]
    fn what_holds_of_http_answers_holds_of_the_corpus() {
        replay("http_answer", http_answer);
    }
}
