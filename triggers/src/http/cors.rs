//! Cross-origin requests to HTTP triggers: pure. HTTP triggers have an origin of their own and use
//! neither cookies nor other browser credentials, so that any origin may call. A function that
//! returns CORS headers of its own, or names `OPTIONS` among its methods, decides for itself.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use super::response::{FaultOwner, HttpTriggerResponse};
use super::route::RouteTable;

/// How long a browser may cache the answer to a preflight: ten minutes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, x-fault");

/// The response to a preflight: 204. `None` if the request is no preflight, no trigger has its
/// path, or a trigger there takes `OPTIONS` itself.
pub fn preflight(
    routes: &RouteTable,
    method: &str,
    raw_path: &str,
    headers: &HeaderMap,
) -> Option<HttpTriggerResponse> {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    if method != "OPTIONS" || !headers.contains_key(ORIGIN) {
        return None;
    }
    let methods = routes.methods(raw_path)?;
    if methods.iter().any(|method| method == "OPTIONS") {
        return None;
    }
    let allowed = if methods.is_empty() {
        asked.clone()
    } else {
        HeaderValue::from_str(&methods.join(", ")).ok()?
    };
    let mut answer = HttpTriggerResponse::empty(204, FaultOwner::None);
    answer.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    answer.headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allowed);
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    let vary = "access-control-request-method, access-control-request-headers";
    answer.headers.insert(VARY, HeaderValue::from_static(vary));
    Some(answer)
}

/// Lets a page of another origin read a response, unless the function set CORS headers itself.
pub fn allow_any_origin(request: &HeaderMap, answer: &mut HttpTriggerResponse) {
    if request.contains_key(ORIGIN) && !answer.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        answer.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        answer.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{HttpAuth, HttpTrigger, Trigger, TriggerSpec};

    use super::*;
    use crate::test_support::trigger_id;

    fn asked(
        methods: &[&str],
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Option<String> {
        let spec = TriggerSpec::new(HttpTrigger {
            path: "/hello".into(),
            methods: methods.iter().map(ToString::to_string).collect(),
            auth: HttpAuth::Key,
            key: None,
        });
        let trigger = Trigger { id: trigger_id("web"), spec, enabled: true };
        let routes = RouteTable::compile(&[trigger]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let answer = preflight(&routes, "OPTIONS", path, &map)?;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        let text = |name| answer.headers.get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
        Some(format!(
            "{} {} {}",
            text(ACCESS_CONTROL_ALLOW_ORIGIN),
            text(ACCESS_CONTROL_ALLOW_METHODS),
            text(ACCESS_CONTROL_ALLOW_HEADERS)
        ))
    }

    const ORIGIN: (&str, &str) = ("origin", "https://example.com");
    const METHOD: (&str, &str) = ("access-control-request-method", "PUT");
    const HEADERS: (&str, &str) = ("access-control-request-headers", "x-hanshu-key");

    #[test]
    fn a_preflight_is_answered_for_the_triggers_methods() {
        let allowed = asked(&["GET", "PUT"], "/hello", &[ORIGIN, METHOD, HEADERS]).unwrap();
        assert_eq!(allowed, "* GET, PUT x-hanshu-key");
        assert_eq!(asked(&[], "/hello", &[ORIGIN, METHOD]).unwrap(), "* PUT -");
    }

    #[test]
    fn other_requests_are_no_preflights() {
        assert_eq!(asked(&["GET"], "/hello", &[ORIGIN]), None);
        assert_eq!(asked(&["GET"], "/hello", &[METHOD]), None);
        assert_eq!(asked(&["GET"], "/other", &[ORIGIN, METHOD]), None);
        assert_eq!(asked(&["OPTIONS"], "/hello", &[ORIGIN, METHOD]), None);
    }

    #[test]
    fn a_functions_own_cors_headers_stand() {
        let request =
            HeaderMap::from_iter([(http::header::ORIGIN, HeaderValue::from_static("null"))]);
        let mut answer = HttpTriggerResponse::empty(200, FaultOwner::None);
        allow_any_origin(&request, &mut answer);
        assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        answer.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("null"));
        allow_any_origin(&request, &mut answer);
        assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "null");
        let mut plain = HttpTriggerResponse::empty(200, FaultOwner::None);
        allow_any_origin(&HeaderMap::new(), &mut plain);
        assert!(plain.headers.is_empty());
    }
}
