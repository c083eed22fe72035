//! A synchronous invocation's outcome as an answer of the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hanshu_core::{Outcome, Report, RequestId, StatusCode as Code, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::headers::{COLD, DURATION, FAULT, LOG_RESULT, REQUEST_ID, id_value};
use crate::http_server::Body;
use crate::problem::Problem;

/// The whole answer. What the function returned is passed on byte for byte.
pub(crate) fn render(outcome: Outcome, request_id: RequestId) -> Response<Body> {
    let Outcome { verdict, report } = outcome;
    let mut response = match verdict {
        Verdict::Returned(json) => json_answer(StatusCode::OK, "none", json),
        Verdict::Failed(failure) => {
            let text = serde_json::to_vec(&failure.body(request_id)).unwrap_or_default();
            let status = match failure.status_code {
                Code::TimeLimitReached => StatusCode::GATEWAY_TIMEOUT,
                // Not one of 5xx, at which clients and proxies like to call again.
                Code::RequestCanceled => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            json_answer(status, "function", text.into())
        }
        Verdict::Refused(refusal) => Problem::from(&refusal).answer(request_id),
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id_value(request_id));
    describe(headers, &report);
    response
}

fn json_answer(status: StatusCode, fault: &'static str, json: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(FAULT, HeaderValue::from_static(fault));
    response
}

/// Sets the headers that say what an invocation took.
pub(crate) fn describe(headers: &mut http::HeaderMap, report: &Report) {
    let micros = report.duration.as_micros();
    let duration = format!("{}.{:03}", micros / 1000, micros % 1000);
    if let Ok(value) = HeaderValue::try_from(duration) {
        headers.insert(DURATION, value);
    }
    headers.insert(COLD, HeaderValue::from_static(if report.cold { "true" } else { "false" }));
    if let Some(tail) = &report.log_tail
        && let Ok(value) = HeaderValue::try_from(BASE64.encode(tail))
    {
        headers.insert(LOG_RESULT, value);
    }
}
