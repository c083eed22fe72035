//! Measures the history: `cargo run --release -p hanshu-store --example history_rates -- URL [EVENTS]`,
//! where URL is `sqlite:PATH` or `postgres://…` of an empty database. Fills it with events of 200
//! functions, one in a hundred failed, and then reads pages of every kind.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hanshu_core::ports::{EndedEvent, EndedEventPosition, HistoryQuery, InvocationHistory as _};
use hanshu_core::{
    AsyncState, Attempt, Clock as _, Digest, Failure, FunctionId, InvocationState, NodeId, Origin,
    Qualifier, RequestId, StatusCode, SystemClock, Timestamp,
};
use hanshu_store::{SqlDatabase, SqlHistory};

const FUNCTIONS: usize = 200;
const BATCH: usize = 500;
const PAGES: usize = 300;
const PAGE_EVENTS: usize = 100;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("which URL?")?;
    let events: usize = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let history = SqlHistory::new(SqlDatabase::open(&url).await?);

    let (start, begun) = (SystemClock.now() - Duration::from_secs(86_400), Instant::now());
    let mut number = 0;
    while number < events {
        let batch: Vec<_> =
            (number..number + BATCH).map(|n| event(n, start)).collect::<Result<_, _>>()?;
        history.record(&batch).await?;
        number += BATCH;
    }
    let rate = number as f64 / begun.elapsed().as_secs_f64();
    println!("{number} events in {:.1} s: {rate:.0} a second", begun.elapsed().as_secs_f64());

    let all = query(None, &[])?;
    let function = query(Some(7), &[])?;
    let failed = query(None, &[InvocationState::Failed])?;
    let both = query(Some(7), &[InvocationState::Failed, InvocationState::Expired])?;
    let none = query(Some(7), &[InvocationState::Expired])?;
    let trigger = HistoryQuery { trigger: Some("orders".parse()?), ..query(Some(7), &[])? };
    for (what, query) in [
        ("namespace", all),
        ("function", function),
        ("failed", failed),
        ("function, failed or expired", both),
        ("function, expired (none)", none),
        ("trigger (none)", trigger),
    ] {
        read(&history, what, query, start, events).await?;
    }
    let text = HistoryQuery { text: Some("no such text".into()), ..query(None, &[])? };
    let begun = Instant::now();
    let page = history.page(&text).await?;
    println!(
        "a text that nothing has: {:?}, stopped: {}",
        begun.elapsed(),
        page.searched_to.is_some()
    );
    Ok(())
}

/// Pages that follow each other, and pages anywhere.
async fn read(
    history: &SqlHistory,
    what: &str,
    query: HistoryQuery,
    start: Timestamp,
    events: usize,
) -> anyhow::Result<()> {
    let (mut times, mut after) = (Vec::new(), None);
    for page in 0..PAGES {
        let to =
            (page % 2 == 1).then(|| start + Duration::from_millis((page * events / PAGES) as u64));
        let begun = Instant::now();
        let read = history.page(&HistoryQuery { after, to, ..query.clone() }).await?;
        times.push(begun.elapsed());
        after = read.next;
    }
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{what}: p50 {:?}, p99 {:?}", at(50), at(99));
    Ok(())
}

fn query(function: Option<usize>, states: &[InvocationState]) -> anyhow::Result<HistoryQuery> {
    Ok(HistoryQuery {
        namespace: "default".parse()?,
        function: function.map(|number| format!("function-{number}").parse()).transpose()?,
        trigger: None,
        states: states.to_vec(),
        from: None,
        to: None,
        text: None,
        after: None,
        limit: PAGE_EVENTS,
    })
}

fn event(number: usize, start: Timestamp) -> anyhow::Result<EndedEvent> {
    let ended_at = start + Duration::from_millis(number as u64);
    let has_failed = number.is_multiple_of(100);
    let node: NodeId = "node-1".parse()?;
    let status = if has_failed { StatusCode::UserException } else { StatusCode::Success };
    let attempt = Attempt {
        number: 1,
        started_at: ended_at,
        ended_at: Some(ended_at),
        status: Some(status),
        node: Some(node),
        cold: false,
    };
    let name = format!("function-{}", number % FUNCTIONS).parse()?;
    let state = AsyncState {
        request_id: RequestId::new(),
        function: FunctionId { namespace: "default".parse()?, name },
        version: Qualifier::Latest,
        trigger: None,
        called_by: None,
        state: if has_failed { InvocationState::Failed } else { InvocationState::Succeeded },
        attempts: vec![attempt],
        accepted_at: ended_at,
        ended_at: Some(ended_at),
        result: None,
        error: has_failed.then(|| Failure::seen(StatusCode::UserException, "division by zero")),
        rerun_of: None,
    };
    Ok(EndedEvent {
        position: EndedEventPosition(0),
        state,
        revision: Digest::from_bytes([1; 32]),
        origin: Origin::Direct,
        input: Bytes::from_static(b"{\"order\": 12345678}"),
    })
}
