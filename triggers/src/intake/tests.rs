//! Which events the intake takes.

use hanshu_core::{ErrorKind, FunctionCaller, Namespace, TimerTrigger, TriggerConfig as _};
use proptest::prelude::*;

use super::*;
use crate::test_support::{FakeCatalog, FakeQueue, TokioClock, intake, revision};

fn test_intake() -> (Arc<EventIntake>, Arc<FakeQueue>) {
    let clock = TokioClock::new();
    let queue = FakeQueue::new(clock.clone());
    let catalog = FakeCatalog::of([revision("hello", None)]);
    (intake(catalog, queue.clone(), clock), queue)
}

fn call(function: &str, payload: impl Into<Bytes>) -> FunctionCall {
    FunctionCall {
        request_id: RequestId::new(),
        function: FunctionId { namespace: Namespace::default(), name: function.parse().unwrap() },
        qualifier: Qualifier::Latest,
        event: Event { origin: Origin::Direct, payload: payload.into() },
        tail: false,
    }
}

/// A JSON text of exactly so many bytes.
fn json_of(bytes: usize) -> Vec<u8> {
    let mut json = vec![b'a'; bytes];
    json[0] = b'"';
    json[bytes - 1] = b'"';
    json
}

async fn called(payload: impl Into<Bytes>) -> Result<Bytes, IntakeError> {
    let answered = test_intake().0.call(&Actor::process(), call("hello", payload)).await?;
    match answered.outcome.verdict {
        hanshu_core::Verdict::Returned(json) => Ok(json),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_passed_on_byte_for_byte() {
    for json in ["null", " [1, 2.50e3 ] ", "\"\\ud800 \\u0000 你\"", "{\"a\":1,\"a\":2}", "-0"] {
        assert_eq!(called(json).await.unwrap(), json);
    }
    assert_eq!(called("").await.unwrap(), "{}");
}

#[tokio::test]
async fn a_synchronous_event_may_have_six_megabytes_and_not_a_byte_more() {
    assert_eq!(called(json_of(6_291_456)).await.unwrap().len(), 6_291_456);
    let error = called(json_of(6_291_457)).await.unwrap_err();
    let expected =
        "the event has 6291457 bytes, more than the 6291456 that a synchronous call may have";
    assert_eq!((error.to_string().as_str(), error.code()), (expected, "event_too_large"));
}

#[tokio::test]
async fn a_queued_event_may_have_128_kilobytes_and_not_a_byte_more() {
    let (intake, queue) = test_intake();
    intake.accept(&Actor::process(), call("hello", json_of(131_072)), None).await.unwrap();
    let error =
        intake.accept(&Actor::process(), call("hello", json_of(131_073)), None).await.unwrap_err();
    assert!(matches!(error, IntakeError::TooLarge { bytes_max: 131_072, .. }), "{error}");
    assert_eq!(queue.kept.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_accepted_event_is_pinned_and_knows_when_it_expires() {
    let (intake, queue) = test_intake();
    let mut event = call("hello", "1");
    event.event.origin = Origin::trigger_of(TimerTrigger::KIND, "nightly".parse().unwrap());
    let accepted = intake.accept(&Actor::process(), event.clone(), None).await.unwrap();
    assert_eq!((accepted.request_id, accepted.pushed), (event.request_id, PushOutcome::Accepted));
    let kept = queue.kept.lock().unwrap();
    let kept = &kept[0].event;
    assert_eq!(kept.queue.to_string(), "default/hello/nightly");
    assert_eq!(kept.revision, revision("hello", None).digest);
    assert_eq!(kept.expires_at, kept.accepted_at + Duration::from_secs(21_600));
    assert_eq!(kept.max_waiting, 100_000);
}

#[tokio::test]
async fn what_is_not_json_or_not_there_is_refused() {
    for bad in ["{", "{} {}", "nul", "\"\n\"", "[1,]", "\"\\x\"", " ", "01", "\"\\u12\""] {
        let error = called(bad).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, "invalid_json"), "{bad}");
    }
    let error = called(&b"\"\xff\""[..]).await.unwrap_err();
    assert!(error.to_string().contains("bytes from 1 on are not UTF-8"), "{error}");
    let error = test_intake().0.call(&Actor::process(), call("nobody", "1")).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, "function_not_found"));
}

#[tokio::test]
async fn an_unavailable_queue_is_reported_as_such() {
    let (intake, queue) = test_intake();
    *queue.unavailable.lock().unwrap() = true;
    let error = intake.accept(&Actor::process(), call("hello", "1"), None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "queue_unavailable"));
}

/// An actor that is a function of the namespace, called through `depth` functions.
fn function_actor(namespace: &str, depth: u8) -> Actor {
    let function =
        FunctionId { namespace: namespace.parse().unwrap(), name: "caller".parse().unwrap() };
    Actor::function(FunctionCaller { function, request_id: RequestId::new(), depth })
}

#[tokio::test]
async fn a_function_starts_functions_of_its_own_namespace_only() {
    let (intake, queue) = test_intake();
    let actor = function_actor("default", 0);
    intake.call(&actor, call("hello", "1")).await.unwrap();
    intake.accept(&actor, call("hello", "1"), None).await.unwrap();
    let origin = queue.kept.lock().unwrap()[0].event.event.origin.clone();
    assert_eq!((origin.caller(), origin.depth()), (actor.caller(), 1));

    let stranger = function_actor("other", 0);
    let refused = intake.call(&stranger, call("hello", "1")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Forbidden, "forbidden"));
    let refused = intake.accept(&stranger, call("hello", "1"), None).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Forbidden, "forbidden"));
    let refused = intake.rerun(&actor, call("hello", "1"), RequestId::new()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert_eq!(queue.kept.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_chain_of_calls_is_eight_deep_at_most() {
    let (intake, queue) = test_intake();
    for (depth, taken) in [(0, true), (7, true), (8, false), (255, false)] {
        let actor = function_actor("default", depth);
        let called = intake.call(&actor, call("hello", "1")).await;
        assert_eq!(called.is_ok(), taken, "depth {depth}");
        let accepted = intake.accept(&actor, call("hello", "1"), None).await;
        assert_eq!(
            accepted.as_ref().err().map(IntakeError::code),
            (!taken).then_some("call_too_deep")
        );
    }
    let depths: Vec<_> =
        queue.kept.lock().unwrap().iter().map(|kept| kept.event.event.origin.depth()).collect();
    assert_eq!(depths, [1, 8]);
}

#[test]
fn six_megabytes_of_brackets_do_not_overflow_the_stack() {
    // A small stack on purpose: the data plane's threads have no more to spare.
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        let open = vec![b'['; 6_291_456];
        assert!(check_json(&open).is_err());
        let mut nested = vec![b'['; 3_145_728];
        nested.resize(6_291_456, b']');
        assert!(check_json(&nested).is_ok());
        assert!(check_json(&b"{\"a\":".repeat(1_000_000)).is_err());
    });
    thread.unwrap().join().unwrap();
}

proptest! {
    /// What a full parser takes is taken, and what it refuses is refused (lone surrogates aside,
    /// which it cannot keep in a string).
    #[test]
    fn the_check_agrees_with_a_parser(text in "[\\[\\]{}\",:0-9eE.+ntfalsru \\\\-]{0,16}") {
        let parsed = serde_json::from_str::<serde_json::Value>(&text);
        let surrogate = parsed.as_ref().is_err_and(|e| e.to_string().contains("surrogate")
            || e.to_string().contains("hex escape") || e.to_string().contains("out of range"));
        prop_assert!(surrogate || parsed.is_ok() == check_json(text.as_bytes()).is_ok(), "{}", text);
    }

    /// A text with anything after it is not one JSON text.
    #[test]
    fn garbage_after_the_value_is_refused(n in any::<i32>(), garbage in "[a-z{}\\[\\]\"]{1,5}") {
        let text = format!("[{n}]{garbage}");
        prop_assert!(check_json(text.as_bytes()).is_err(), "{}", text);
    }
}
