//! Which HTTP response an outcome becomes.

use hanshu_core::{Failure, Report, Timestamp};
use proptest::prelude::*;

use super::*;

fn outcome(verdict: Verdict) -> Outcome {
    let report = Report {
        started_at: Timestamp::UNIX_EPOCH,
        duration: Duration::ZERO,
        cold: false,
        init: None,
        memory_bytes: 0,
        node: None,
        log_tail: None,
    };
    Outcome { verdict, report }
}

fn answered(json: impl Into<Bytes>) -> HttpTriggerResponse {
    response_to_outcome(&outcome(Verdict::Returned(json.into())), RequestId::new())
}

/// `status headers | body`.
fn check(json: &str, expected: &str) {
    let answer = answered(json.to_owned());
    let headers: Vec<_> =
        answer.headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().unwrap())).collect();
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(format!("{} {} | {body}", answer.status, headers.join(" ")), expected, "{json}");
    assert_eq!(answer.fault, FaultOwner::None);
}

#[test]
fn an_answer_with_a_status_code_speaks_http() {
    check(
        r#"{"statusCode":201,"headers":{"Content-Type":"text/html","X-A":["1","2"]},"body":"<b>"}"#,
        "201 content-type=text/html x-a=1 x-a=2 | <b>",
    );
    check(r#" {"statusCode":404}"#, "404 content-type=text/plain; charset=utf-8 | ");
    check(r#"{"statusCode":204,"body":"x"}"#, "204  | ");
    check(
        r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true,"headers":null,"more":[1]}"#,
        "200 content-type=text/plain; charset=utf-8 | hi",
    );
    check(
        r#"{"statusCode":200,"body":null,"isBase64Encoded":null}"#,
        "200 content-type=text/plain; charset=utf-8 | ",
    );
    check(
        r#"{"statusCode":200,"body":"a\n\u4f60\u0000"}"#,
        "200 content-type=text/plain; charset=utf-8 | a\n你\0",
    );
}

#[test]
fn anything_else_is_200_and_json() {
    for json in ["null", "\"hi\"", "[1]", "{\"a\":1}", " {} ", "\"\\ud800\"", "{\"\\ud800\":1}"] {
        check(json, &format!("200 content-type=application/json | {json}"));
    }
}

#[test]
fn an_invalid_answer_is_a_bad_gateway() {
    for json in [
        r#"{"statusCode":"200"}"#,
        r#"{"statusCode":200.5}"#,
        r#"{"statusCode":99}"#,
        r#"{"statusCode":101}"#,
        r#"{"statusCode":600}"#,
        r#"{"statusCode":-1}"#,
        r#"{"statusCode":200,"headers":[]}"#,
        r#"{"statusCode":200,"headers":{"x":1}}"#,
        r#"{"statusCode":200,"headers":{"x":[1]}}"#,
        r#"{"statusCode":200,"headers":{"x y":"1"}}"#,
        r#"{"statusCode":200,"headers":{"x":"a\nb: c"}}"#,
        r#"{"statusCode":200,"body":{}}"#,
        r#"{"statusCode":200,"body":"\ud800"}"#,
        r#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
        r#"{"statusCode":200,"isBase64Encoded":"yes"}"#,
    ] {
        let answer = answered(json);
        assert_eq!((answer.status, answer.fault), (502, FaultOwner::Function), "{json}");
        assert_eq!(answer.code, Some("invalid_response"));
    }
}

#[test]
fn hop_by_hop_and_platform_headers_are_dropped() {
    check(
        r#"{"statusCode":200,"body":"x","headers":{"Connection":"close, X-Hop","X-Hop":"1",
        "Transfer-Encoding":"chunked","Content-Length":"9","Keep-Alive":"1","Upgrade":"h2c",
        "X-Request-Id":"1","X-Fault":"none","TE":"x","Trailer":"x","Set-Cookie":["a=1","b=2"]}}"#,
        "200 set-cookie=a=1 set-cookie=b=2 content-type=text/plain; charset=utf-8 | x",
    );
}

#[test]
fn a_failure_reveals_neither_message_nor_stack() {
    let failure = |status| {
        let mut failure = Failure::seen(status, "SECRET message");
        failure.stack_trace = Some("SECRET stack".into());
        Verdict::Failed(failure)
    };
    let sandbox = Refusal::Sandbox { reason: "SECRET path".into() };
    let gone = Refusal::Gone { what: "SECRET".into() };
    for (verdict, status, code, fault) in [
        (failure(StatusCode::UserException), 502, "function_failed", FaultOwner::Function),
        (failure(StatusCode::MemoryLimitReached), 502, "function_failed", FaultOwner::Function),
        (failure(StatusCode::TimeLimitReached), 504, "function_timeout", FaultOwner::Function),
        (failure(StatusCode::RequestCanceled), 502, "function_cancelled", FaultOwner::Function),
        (Verdict::Refused(sandbox), 503, "sandbox_failed", FaultOwner::Platform),
        (Verdict::Refused(gone), 404, "function_not_found", FaultOwner::Platform),
        (
            Verdict::Refused(Refusal::Concurrency { limit: 3 }),
            429,
            "concurrency_exceeded",
            FaultOwner::Platform,
        ),
    ] {
        let id = RequestId::new();
        let answer = response_to_outcome(&outcome(verdict), id);
        assert_eq!((answer.status, answer.code, answer.fault), (status, Some(code), fault));
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!body.contains("SECRET"), "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&code.into(), &status.into()));
        assert_eq!(body["requestId"], id.to_string());
        assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers.contains_key(RETRY_AFTER), matches!(status, 429 | 503));
    }
}

#[test]
fn a_refused_call_is_answered_with_its_status() {
    let large = IntakeError::TooLarge { bytes: 7, bytes_max: 6, way: "a synchronous" };
    let unavailable = IntakeError::Function(hanshu_core::ports::CatalogError::Unavailable);
    for (error, status) in [(large, 413), (unavailable, 503), (IntakeError::Stopping, 503)] {
        assert_eq!(response_to_refused_call(&error, RequestId::new()).status, status, "{error}");
    }
}

proptest! {
    /// Whatever a function returns, there is an answer that can be sent.
    #[test]
    fn any_json_has_an_answer(status in any::<i32>(), body in "\\PC{0,20}", name in "\\PC{0,9}") {
        let json = serde_json::json!({"statusCode": status, "headers": {name: &body}, "body": body});
        let answer = answered(json.to_string());
        prop_assert!((200..=599).contains(&answer.status));
        prop_assert!(answer.status == 502 || i32::from(answer.status) == status);
    }
}
