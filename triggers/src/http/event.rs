//! The event of an HTTP request, in the shape of SCF's API gateway, written straight into one
//! buffer: a tree of JSON values would copy a body of up to 6 MB twice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hanshu_core::RequestId;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderName};
use percent_encoding::percent_decode;

use super::hop_by_hop::hop_by_hop_headers;
use super::route::RouteMatch;

/// The header that carries an HTTP trigger's key; functions do not see it.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("x-hanshu-key");

/// SCF's name for a deployed API's stage; we have one.
const STAGE: &str = "release";

/// The request, as the client sent it.
#[derive(Clone, Copy, Debug)]
pub struct HttpTriggerRequest<'a> {
    /// The method as it was sent, not normalised.
    pub method: &'a str,
    /// Not decoded, without the query.
    pub raw_path: &'a str,
    /// The part after `?`.
    pub query: Option<&'a str>,
    /// Every header of the request.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a Bytes,
    /// The address of the peer.
    pub source_ip: IpAddr,
    /// The platform's own. A client's id is passed on in the headers and never adopted.
    pub request_id: RequestId,
}

/// Makes the event's payload. The body is text when it is UTF-8 and not encoded, else base64 with
/// `isBase64Encoded` true. Names of headers are lower-case; a repeated one is joined by `, `;
/// hop-by-hop headers and the trigger's key are left out.
pub fn http_event_payload(request: &HttpTriggerRequest<'_>, found: &RouteMatch) -> Bytes {
    let body = request.body;
    let mut json = JsonWriter(Vec::with_capacity(body.len() + body.len() / 8 + 2_048));
    json.raw("{\"requestContext\":{\"path\":");
    json.text(&found.route.path);
    json.raw(",\"httpMethod\":");
    json.text(request.method);
    json.raw(",\"requestId\":");
    json.text(request.request_id.encode(&mut [0; 36]));
    json.raw(",\"identity\":{},\"sourceIp\":");
    json.text(&request.source_ip.to_canonical().to_string());
    json.raw(",\"stage\":");
    json.text(STAGE);
    json.raw("},\"headers\":");
    headers(&mut json, request.headers);
    json.raw(",\"pathParameters\":{");
    for (index, (name, value)) in found.parameters.iter().enumerate() {
        json.key(index, name);
        json.text(value);
    }
    json.raw(
        "},\"queryStringParameters\":{},\"headerParameters\":{},\"stageVariables\":{\"stage\":",
    );
    json.text(STAGE);
    json.raw("},\"path\":");
    json.text(request.raw_path);
    json.raw(",\"queryString\":");
    query(&mut json, request.query.unwrap_or_default());
    json.raw(",\"httpMethod\":");
    json.text(request.method);
    json.raw(",\"body\":");
    match text_body(request) {
        Some(text) => {
            json.text(text);
            json.raw(",\"isBase64Encoded\":false}");
        }
        None => {
            json.raw("\"");
            json.raw(&STANDARD.encode(body));
            json.raw("\",\"isBase64Encoded\":true}");
        }
    }
    json.0.into()
}

fn text_body<'a>(request: &HttpTriggerRequest<'a>) -> Option<&'a str> {
    let plain = match request.headers.get(CONTENT_ENCODING) {
        None => true,
        Some(coding) => coding.as_bytes().eq_ignore_ascii_case(b"identity"),
    };
    plain.then(|| std::str::from_utf8(request.body).ok()).flatten()
}

fn headers(json: &mut JsonWriter, headers: &HeaderMap) {
    json.raw("{");
    let hop = hop_by_hop_headers(headers);
    let names = headers.keys().filter(|name| **name != KEY_HEADER && !hop.contains(*name));
    for (index, name) in names.enumerate() {
        json.key(index, name.as_str());
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        json.text(&values.join(", "));
    }
    json.raw("}");
}

/// `a=1&a=2&b&c=` → `{"a":["1","2"],"b":true,"c":""}`, in the order of first appearance.
fn query(json: &mut JsonWriter, query: &str) {
    type QueryValues<'a> = Vec<Option<Cow<'a, str>>>;
    let mut order: Vec<(Cow<'_, str>, QueryValues<'_>)> = Vec::new();
    let mut indices: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (decoded(name), Some(decoded(value))),
            None => (decoded(pair), None),
        };
        let index = *indices.entry(name.clone()).or_insert(order.len());
        match order.get_mut(index) {
            Some((_, values)) => values.push(value),
            None => order.push((name, vec![value])),
        }
    }
    json.raw("{");
    for (index, (name, values)) in order.iter().enumerate() {
        json.key(index, name);
        match values.as_slice() {
            [value] => json.value(value.as_deref()),
            values => {
                json.raw("[");
                for (index, value) in values.iter().enumerate() {
                    json.raw(if index == 0 { "" } else { "," });
                    json.value(value.as_deref());
                }
                json.raw("]");
            }
        }
    }
    json.raw("}");
}

/// Percent-decoded, `+` as a blank; what is not UTF-8 is reindexd.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('+', " ");
    Cow::Owned(percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned())
}

struct JsonWriter(Vec<u8>);

impl JsonWriter {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str) {
        // Writing a text into a vector cannot fail.
        let _ = serde_json::to_writer(&mut self.0, text);
    }

    fn key(&mut self, index: usize, key: &str) {
        self.raw(if index == 0 { "" } else { "," });
        self.text(key);
        self.raw(":");
    }

    fn value(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.raw("true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{HttpAuth, HttpTrigger, Trigger, TriggerSpec};
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::route::{RouteLookup, RouteTable};
    use crate::test_support::trigger_id;

    fn made(path: &str, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Value {
        let spec = TriggerSpec::new(HttpTrigger {
            path: "/hello/{name}".into(),
            methods: vec![],
            auth: HttpAuth::None,
            key: None,
        });
        let trigger = Trigger { id: trigger_id("web"), spec, enabled: true };
        let table = RouteTable::compile(&[trigger]);
        let RouteLookup::Found(found) = table.find("POST", path) else {
            panic!("not found: {path}")
        };
        let request = HttpTriggerRequest {
            method: "POST",
            raw_path: path,
            query,
            headers,
            body: &Bytes::copy_from_slice(body),
            source_ip: "::ffff:10.0.0.7".parse().unwrap(),
            request_id: RequestId::new(),
        };
        serde_json::from_slice(&http_event_payload(&request, &found)).unwrap()
    }

    #[test]
    fn an_event_has_the_shape_of_scfs_gateway() {
        let mut headers = HeaderMap::new();
        headers.append("Content-Type", HeaderValue::from_static("text/plain"));
        headers.append("X-Two", HeaderValue::from_static("1"));
        headers.append("x-two", HeaderValue::from_static("2"));
        headers.append(KEY_HEADER, HeaderValue::from_static("secret"));
        headers.append("Connection", HeaderValue::from_static("keep-alive, x-hop"));
        headers.append("x-hop", HeaderValue::from_static("1"));
        let mut event =
            made("/hello/a%20b", Some("x=1&x=%32&y&z=&s=a+b%26"), &headers, b"hi \"you\"");
        assert!(
            event["requestContext"]["requestId"].as_str().unwrap().parse::<RequestId>().is_ok()
        );
        event["requestContext"]["requestId"] = Value::Null;
        let expected = json!({
            "requestContext": {
                "path": "/hello/{name}", "httpMethod": "POST", "requestId": null, "identity": {},
                "sourceIp": "10.0.0.7", "stage": "release",
            },
            "headers": {"content-type": "text/plain", "x-two": "1, 2"},
            "pathParameters": {"name": "a b"},
            "queryStringParameters": {}, "headerParameters": {},
            "stageVariables": {"stage": "release"},
            "path": "/hello/a%20b",
            "queryString": {"x": ["1", "2"], "y": true, "z": "", "s": "a b&"},
            "httpMethod": "POST", "body": "hi \"you\"", "isBase64Encoded": false,
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_body_is_text_only_when_it_is_utf8_and_not_encoded() {
        let body = |headers: &HeaderMap, body: &[u8]| {
            let event = made("/hello/x", None, headers, body);
            (event["body"].as_str().unwrap().to_owned(), event["isBase64Encoded"] == true)
        };
        let none = HeaderMap::new();
        let coded =
            |coding| HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))]);
        assert_eq!(body(&none, "你\0".as_bytes()), ("你\0".into(), false));
        assert_eq!(body(&none, b""), (String::new(), false));
        assert_eq!(body(&none, b"\xff\x00"), ("/wA=".into(), true));
        assert_eq!(body(&coded("gzip"), b"plain"), ("cGxhaW4=".into(), true));
        assert_eq!(body(&coded("Identity"), b"plain"), ("plain".into(), false));
    }

    proptest! {
        /// Whatever is sent, the event is JSON and says it back.
        #[test]
        fn any_request_becomes_json(
            body in prop::collection::vec(any::<u8>(), 0..60), query in "[ -~]{0,40}",
            header in prop::collection::vec(32u8..=255, 0..20),
        ) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&header) {
                headers.insert("x-any", value);
            }
            let event = made("/hello/x", Some(&query), &headers, &body);
            let text = event["body"].as_str().unwrap();
            let back = if event["isBase64Encoded"] == true {
                STANDARD.decode(text).unwrap()
            } else {
                text.as_bytes().to_vec()
            };
            prop_assert_eq!(back, body);
        }
    }
}
