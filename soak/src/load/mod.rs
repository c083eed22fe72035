//! The load: calls of every kind, and what may come of each.

mod calls;
mod hostile;
mod states;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chronicle::Chronicle;
use crate::functions::Ask;
use crate::http::{Answer, Trouble, request};
use crate::ledger::{Ledger, Way};
use crate::services::Access;

pub(crate) use states::{Said, ask_state};

/// One server under load.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) index: usize,
    pub(crate) access: Access,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) chronicle: Arc<Chronicle>,
}

/// A client with chances of its own.
#[derive(Debug)]
struct Client {
    world: World,
    rng: StdRng,
    stop: CancellationToken,
}

/// Clients of each kind for one server.
const SYNC_CLIENTS: u64 = 3;
const QUEUED_CLIENTS: u64 = 2;
const WEB_CLIENTS: u64 = 2;

/// Starts all clients of a server. They end when `stop` says so, after the call that they are at.
pub(crate) fn start(world: &World, seed: u64, stop: &CancellationToken, tasks: &TaskTracker) {
    let mut number = 0;
    let mut client = || {
        number += 1;
        let own = seed ^ ((world.index as u64) << 56) ^ (number << 48);
        Client { world: world.clone(), rng: StdRng::seed_from_u64(own), stop: stop.clone() }
    };
    for _ in 0..SYNC_CLIENTS {
        tasks.spawn(client().call_sync());
    }
    for _ in 0..QUEUED_CLIENTS {
        tasks.spawn(client().call_queued());
    }
    for _ in 0..WEB_CLIENTS {
        tasks.spawn(client().call_web());
    }
    tasks.spawn(client().be_hostile());
    tasks.spawn(client().watch_states());
}

impl Client {
    /// Waits between two calls; `false` when it is time to stop.
    async fn think(&mut self) -> bool {
        let pause = Duration::from_millis(self.rng.random_range(5..120));
        self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }

    /// Mostly small, sometimes large; `largest` bytes at most.
    fn ask(&mut self, largest: usize) -> Ask {
        let size = |rng: &mut StdRng| match rng.random_range(0..100) {
            0..75 => rng.random_range(0..200),
            75..93 => rng.random_range(0..largest.min(10_000)),
            93..99 => rng.random_range(0..largest.min(256 * 1024)),
            _ => rng.random_range(0..largest),
        };
        let (pad, answer) = (size(&mut self.rng), size(&mut self.rng));
        let sleep_ms = if self.rng.random_bool(0.3) { self.rng.random_range(0..300) } else { 0 };
        let log = if self.rng.random_bool(0.1) { self.rng.random_range(1..20_000) } else { 0 };
        Ask { pad, answer, sleep_ms, log }
    }
}

impl World {
    /// A request to the API that shows the key.
    fn api(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let authorization = self.access.authorization();
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        request("POST", path, &all, body)
    }

    fn count(&self, way: Way, how: impl Into<String>) {
        self.ledger.count(way, how);
    }

    fn wrong(&self, text: &str) {
        self.chronicle.wrong(format!("{}: {text}", crate::plan::name(self.index)));
    }

    /// Whether what befell the server since then explains trouble.
    fn explained(&self, since: Instant) -> bool {
        self.chronicle.explains(self.index, since)
    }

    /// What came of a call that should run once and be answered with `ask`'s answer.
    fn judge(&self, call: &Sent, answered: Result<Answer, Trouble>) {
        let Sent { way, number, ask, at } = call;
        let answer = match answered {
            Ok(answer) => answer,
            Err(trouble) => return self.no_answer(*way, *number, *at, &trouble),
        };
        let what = || format!("{} event {number}", way.word());
        self.count(*way, answer.status.to_string());
        match (answer.status, answer.fault.as_str()) {
            (200, _) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let pad = body["pad"].as_str().map(str::len);
                let same = body["number"] == *number && body["got"] == ask.pad;
                if !same || pad != Some(ask.answer) {
                    let start = String::from_utf8_lossy(&answer.body);
                    let start: String = start.chars().take(200).collect();
                    self.wrong(&format!("{} got another's answer: {start}", what()));
                }
                let begun = self.ledger.begun(*number);
                if begun != 1 {
                    self.wrong(&format!("{} was answered and ran {begun} times", what()));
                }
            }
            (429, "platform") => {
                if self.ledger.begun(*number) != 0 {
                    self.wrong(&format!("{} was refused with 429 and ran", what()));
                }
            }
            (503, "platform") if self.explained(*at) => {}
            (500 | 502 | 504, "function") if self.explained(*at) => {}
            (status, fault) => {
                let body = String::from_utf8_lossy(&answer.body);
                let body: String = body.chars().take(300).collect();
                let id = &answer.request_id;
                let took = at.elapsed();
                self.wrong(&format!(
                    "{} ({id}): {status}, fault {fault}, after {took:?}: {body}",
                    what()
                ));
            }
        }
    }

    /// Only the server's end explains a missing answer.
    fn no_answer(&self, way: Way, number: u64, at: Instant, trouble: &Trouble) {
        let what = format!("{} event {number} after {:?}: {trouble:?}", way.word(), at.elapsed());
        match trouble {
            Trouble::Broken(_) => {
                self.count(way, "broken");
                if !self.chronicle.explains_break(self.index, at) {
                    self.wrong(&what);
                }
            }
            Trouble::Late | Trouble::Garbled(_) => {
                self.count(way, "none");
                self.wrong(&what);
            }
        }
    }
}

/// A call on its way.
#[derive(Debug)]
struct Sent {
    way: Way,
    number: u64,
    ask: Ask,
    at: Instant,
}
