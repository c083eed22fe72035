//! Many claimers at once, and a process that is killed.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hanshu_core::ports::{Claim, EventEnd, EventQueue, NewEvent, PushOutcome, TimerTick};
use hanshu_core::{Clock as _, ManualClock, RequestId, Timestamp, TriggerId};
use tokio::task::JoinSet;

use crate::queue_kinds::{HOLD, event, ids, lasting_kinds, name, new_clock, node, reopen};

const Q: &str = "default/hello";
const EVENTS: usize = 400;
const CLAIMERS: usize = 8;

/// Who holds what, as the claimers see it.
#[derive(Default)]
struct ClaimLedger {
    held: Mutex<HashSet<RequestId>>,
    ended: Mutex<HashSet<RequestId>>,
}

impl ClaimLedger {
    fn take(&self, claim: &Claim) {
        let mut held = self.held.lock().unwrap();
        assert!(held.insert(claim.request_id), "{} was claimed twice", claim.request_id);
        assert!(!self.ended.lock().unwrap().contains(&claim.request_id), "it had ended");
    }

    /// Before the store hears of it: as soon as it does, others may claim.
    fn give(&self, claim: &Claim) {
        self.held.lock().unwrap().remove(&claim.request_id);
    }

    fn end(&self, claim: &Claim) {
        self.give(claim);
        assert!(self.ended.lock().unwrap().insert(claim.request_id), "it ended twice");
    }
}

async fn claimer(queue: Arc<dyn EventQueue>, clock: Arc<ManualClock>, ledger: Arc<ClaimLedger>) {
    let source = queue.source(&name(Q));
    while ledger.ended.lock().unwrap().len() < EVENTS {
        for claim in source.claim(7, HOLD, &node()).await.unwrap() {
            ledger.take(&claim);
            tokio::task::yield_now().await;
            if claim.tries < 3 && claim.request_id.to_string().ends_with(['0', '5', 'a', 'f']) {
                ledger.give(&claim);
                source.retry(&claim.receipt, clock.now(), None).await.unwrap();
            } else {
                ledger.end(&claim);
                let ended = EventEnd::Succeeded(Bytes::from_static(b"1"));
                source.end(&claim.receipt, None, ended).await.unwrap();
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_share_a_queue_without_a_loss_or_a_double_claim() {
    for kind in lasting_kinds().await {
        let ledger = Arc::new(ClaimLedger::default());
        let mut claimers = JoinSet::new();
        for _ in 0..CLAIMERS {
            let queue = kind.place.open(Arc::clone(&kind.clock)).await;
            claimers.spawn(claimer(queue, Arc::clone(&kind.clock), Arc::clone(&ledger)));
        }
        // Pushed while they claim, from two processes.
        let other = kind.place.open(Arc::clone(&kind.clock)).await;
        let now = kind.clock.now();
        let pushes = (0..EVENTS).map(|n| {
            let queue = if n % 2 == 0 { &kind.queue } else { &other };
            queue.push(event(Q, now))
        });
        for pushed in join_all(pushes).await {
            pushed.unwrap();
        }
        let all = async { while claimers.join_next().await.transpose().unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect(kind.name);
        assert_eq!(ledger.ended.lock().unwrap().len(), EVENTS, "{}", kind.name);
        let stats = kind.queue.stats().await.unwrap();
        assert_eq!(stats, [], "{}: nothing waits, nothing runs", kind.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lapsed_events_are_claimed_by_one_of_many() {
    for kind in lasting_kinds().await {
        join_all((0..100).map(|_| kind.push(Q))).await;
        let mut dead = ids(&kind.claim(Q, 100).await);
        kind.clock.advance(HOLD);
        let mut claimers = Vec::new();
        for _ in 0..CLAIMERS {
            claimers.push(kind.place.open(Arc::clone(&kind.clock)).await.source(&name(Q)));
        }
        let mut claimed = Vec::new();
        // A claimer may pass over what another one is about to take: so more than one round.
        for _ in 0..8 {
            let node = node();
            let claims = claimers.iter().map(|source| source.claim(20, HOLD, &node));
            for claims in join_all(claims).await {
                claimed.extend(ids(&claims.unwrap()));
            }
        }
        claimed.sort();
        dead.sort();
        assert_eq!(claimed, dead, "{}: each once", kind.name);
    }
}

/// Every node pushes the same ticks of the same timers, and claims, each in an order of its own.
async fn timer_node(queue: Arc<dyn EventQueue>, clock: Arc<ManualClock>, rotate: usize) -> usize {
    const ROUNDS: u32 = 12;
    let timers: Vec<_> = (0..6).map(|n| name(&format!("default/fn-{n}/tt"))).collect();
    let start = clock.now().as_second();
    let mut accepted = 0;
    for round in 1..=ROUNDS {
        let pushes = (0..timers.len()).map(|n| {
            let timer = &timers[(n + rotate) % timers.len()];
            let trigger = TriggerId {
                function: timer.function.clone(),
                name: timer.trigger.clone().unwrap(),
            };
            let at = Timestamp::from_second(start + i64::from(round)).unwrap();
            let tick = Some(TimerTick { trigger, at });
            queue.push(NewEvent { tick, ..event(&timer.to_string(), clock.now()) })
        });
        for pushed in join_all(pushes).await {
            accepted += usize::from(pushed.unwrap() == PushOutcome::Accepted);
        }
        for timer in &timers {
            let source = queue.source(timer);
            let claims = source.claim(3, HOLD, &node()).await.unwrap();
            let settle = async |claim: Claim| {
                if claim.tries % 2 == 1 {
                    source.retry(&claim.receipt, clock.now(), None).await.unwrap();
                } else {
                    source.end(&claim.receipt, None, EventEnd::Expired(None)).await.unwrap();
                }
            };
            let settles = claims.into_iter().map(&settle);
            join_all(settles).await;
        }
        queue.collect(clock.now()).await.unwrap();
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_push_the_same_ticks_do_not_wait_for_each_other_in_a_circle() {
    for kind in lasting_kinds().await {
        let mut nodes = JoinSet::new();
        for rotate in 0..4 {
            let queue = kind.place.open(Arc::clone(&kind.clock)).await;
            nodes.spawn(timer_node(queue, Arc::clone(&kind.clock), rotate));
        }
        let all = async { nodes.join_all().await.into_iter().sum::<usize>() };
        let accepted = tokio::time::timeout(Duration::from_secs(60), all).await.expect(kind.name);
        // A node that lags finds later ticks queued and its own refused: none twice, then.
        assert!((6..=6 * 12).contains(&accepted), "{}: {accepted}", kind.name);
        let stats = kind.queue.stats().await.unwrap();
        let left: u64 = stats.iter().map(|queue| queue.waiting + queue.dead_lettered).sum();
        let running: u64 = stats.iter().map(|queue| queue.running).sum();
        assert_eq!((usize::try_from(left), running), (Ok(accepted), 0), "{}", kind.name);
    }
}

const CHILD: &str = "HANSHU_TEST_PUSHER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9() {
    if let Ok(address) = std::env::var(CHILD) {
        return push_and_tell(&address).await;
    }
    for kind in lasting_kinds().await {
        let (url, corner) = kind.place.address();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["queue_race::what_was_answered_survives_kill_9", "--exact", "--nocapture"])
            .env(CHILD, format!("{url}|{corner}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pushed = Vec::new();
        for line in lines {
            // Whole lines only: the last one may be cut off by the kill.
            let Ok(line) = line else { break };
            let Some(id) = line.strip_prefix("pushed ") else { continue };
            let Some(id) = id.strip_suffix('.') else { continue };
            pushed.push(id.parse::<RequestId>().unwrap());
            if pushed.len() == 200 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(200 <= pushed.len(), "{}: {} pushes", kind.name, pushed.len());

        let queue = reopen(&url, &corner).await;
        let source = queue.source(&name(Q));
        let mut there = HashSet::new();
        loop {
            let claims = source.claim(256, HOLD, &node()).await.unwrap();
            if claims.is_empty() {
                break;
            }
            there.extend(ids(&claims));
        }
        let lost = pushed.iter().filter(|id| !there.contains(id)).count();
        assert_eq!(lost, 0, "{}: of {} pushed", kind.name, pushed.len());
    }
}

/// The child: pushes without end, and says so of each push that was answered.
async fn push_and_tell(address: &str) {
    let (url, corner) = address.split_once('|').unwrap();
    let queue = reopen(url, corner).await;
    let pushers = (0..16).map(|_| async {
        loop {
            let event = event(Q, new_clock().now());
            let id = event.request_id;
            queue.push(event).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "pushed {id}.").unwrap();
            out.flush().unwrap();
        }
    });
    join_all::<_>(pushers).await.into_iter().for_each(|never: ()| never);
}
