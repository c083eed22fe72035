//! The measured parts of the warm path, each set up as on a node in use.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hanshu_controller::{AccessKeys, CachedCatalog, MasterKey};
use hanshu_core::ports::RevisionCatalog as _;
use hanshu_core::{
    FunctionId, FunctionName, HttpAuth, HttpTrigger, Namespace, Qualifier, RequestId, SystemClock,
    Trigger, TriggerId, TriggerSpec,
};
use hanshu_invoker::bench_hooks::{ExchangeBench, PoolDecisionBench};
use hanshu_runtimes::wire::{
    EventOrigin, FrameHeader, FrameKind, HEADER_LEN, INVOKE_HEAD_LEN, InvokeHead, REQUEST_ID_LEN,
};
use hanshu_triggers::{RouteLookup, RouteTable, check_json};

use crate::fixed_registry::FixedRegistry;

type PartFuture = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;
/// A part's name, and the function that runs it for a number of rounds.
pub(crate) type MeasuredPart = (&'static str, fn(u32) -> PartFuture);

/// All parts, by their names in `bench/instructions.toml`.
pub(crate) const ALL: &[MeasuredPart] = &[
    ("catalog_lookup", |rounds| Box::pin(catalog_lookup(rounds))),
    ("exchange", |rounds| Box::pin(exchange(rounds))),
    ("frame_decode", |rounds| Box::pin(frame_decode(rounds))),
    ("frame_encode", |rounds| Box::pin(frame_encode(rounds))),
    ("json_check", |rounds| Box::pin(json_check(rounds))),
    ("key_check", |rounds| Box::pin(key_check(rounds))),
    ("pool_decision", |rounds| Box::pin(pool_decision(rounds))),
    ("route_match", |rounds| Box::pin(route_match(rounds))),
];

/// Functions in the catalog.
const FUNCTIONS: usize = 1_000;
/// HTTP triggers in the route table.
const TRIGGERS: usize = 100;
/// Idle sandboxes in the pool.
const SANDBOXES: u32 = 4;
/// A typical event of 100 bytes.
const EVENT: &[u8] = br#"{"order": 12345, "who": "somebody", "items": [1, 2.5, null, true], "note": "a \"quoted\" text \u00e9"}"#;

/// Resolves a name to a revision.
async fn catalog_lookup(rounds: u32) -> anyhow::Result<()> {
    let names: Vec<FunctionName> =
        (0..FUNCTIONS).map(|n| format!("function-{n}").parse()).collect::<Result<_, _>>()?;
    let catalog = CachedCatalog::new(Arc::new(FixedRegistry::functions(&names)?));
    catalog.refresh().await?;
    let namespace = Namespace::default();
    for name in names.iter().cycle().take(usize::try_from(rounds)?) {
        let found = catalog.resolve(black_box(&namespace), black_box(name), Qualifier::Latest)?;
        ensure!(found.function.name == *name, "another function was found");
    }
    Ok(())
}

/// Sends an event and receives its answer over a socket, including the sandbox's side.
async fn exchange(rounds: u32) -> anyhow::Result<()> {
    let mut exchanges = ExchangeBench::connect()?;
    let event = Bytes::from_static(EVENT);
    for _ in 0..rounds {
        exchanges.turn(black_box(&event)).await?;
    }
    Ok(())
}

/// Decodes a frame header and an event's head.
async fn frame_decode(rounds: u32) -> anyhow::Result<()> {
    let (header, head) = frame(1)?;
    for _ in 0..rounds {
        black_box(FrameHeader::decode(black_box(&header))?);
        black_box(InvokeHead::decode(black_box(&head))?);
    }
    Ok(())
}

/// Encodes a frame header and an event's head.
async fn frame_encode(rounds: u32) -> anyhow::Result<()> {
    for event in 0..u64::from(rounds) {
        black_box(frame(black_box(event))?);
    }
    Ok(())
}

fn frame(event: u64) -> anyhow::Result<([u8; HEADER_LEN], [u8; INVOKE_HEAD_LEN])> {
    let header = FrameHeader::new(FrameKind::Invoke, event, EVENT.len())?.encode();
    let request_id = [b'a'; REQUEST_ID_LEN];
    let head = InvokeHead { remaining_ms: 3_000, origin: EventOrigin::DIRECT, request_id }.encode();
    Ok((header, head))
}

/// Checks the syntax of an event.
async fn json_check(rounds: u32) -> anyhow::Result<()> {
    for _ in 0..rounds {
        check_json(black_box(EVENT))?;
    }
    Ok(())
}

/// Authenticates a caller, with a few keys in memory.
async fn key_check(rounds: u32) -> anyhow::Result<()> {
    let registry = FixedRegistry::default();
    let access = AccessKeys::new(MasterKey::generate());
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(access.create(&registry, &SystemClock, None).await?);
    }
    for key in keys.iter().cycle().take(usize::try_from(rounds)?) {
        let who = access.authenticate(black_box(&key.id), black_box(key.secret.expose()), None);
        ensure!(who.is_some(), "a right key is refused");
    }
    Ok(())
}

/// Grants a sandbox and takes it back.
async fn pool_decision(rounds: u32) -> anyhow::Result<()> {
    let mut decisions = PoolDecisionBench::of_pool(SANDBOXES);
    for _ in 0..rounds {
        ensure!(black_box(decisions.turn()), "no sandbox was granted");
    }
    Ok(())
}

/// Finds the HTTP trigger for a request.
async fn route_match(rounds: u32) -> anyhow::Result<()> {
    let triggers: Vec<_> = (0..TRIGGERS).map(trigger).collect::<Result<_, _>>()?;
    let table = RouteTable::compile(&triggers);
    let paths: Vec<_> =
        (0..TRIGGERS).map(|n| format!("/shop-{n}/orders/{}", RequestId::new())).collect();
    for path in paths.iter().cycle().take(usize::try_from(rounds)?) {
        let found = black_box(table.find(black_box("POST"), black_box(path)));
        ensure!(matches!(found, RouteLookup::Found(_)), "`{path}` is not found");
    }
    Ok(())
}

fn trigger(number: usize) -> anyhow::Result<Trigger> {
    let function =
        FunctionId { namespace: Namespace::default(), name: format!("function-{number}").parse()? };
    let spec = TriggerSpec::new(HttpTrigger {
        path: format!("/shop-{number}/orders/{{order}}"),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        auth: HttpAuth::None,
        key: None,
    });
    let name = "http".parse().context("a trigger's name")?;
    Ok(Trigger { id: TriggerId { function, name }, spec, enabled: true })
}
