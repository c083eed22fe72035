//! Bad clients: broken, oversized, unauthorised, garbled and slow requests.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::{Client, Sent};
use crate::functions::{Ask, QUEUED, SYNC};
use crate::http::{Answer, Line, Pace, Trouble, request};
use crate::ledger::Way;

/// The largest event of a synchronous and of a queued call, bytes.
const SYNC_BYTES: usize = 6 * 1024 * 1024;
const QUEUED_BYTES: usize = 128 * 1024;
const KINDS: u32 = 12;

/// What may be answered to a request that must not run.
#[derive(Debug)]
struct Refusal {
    name: &'static str,
    statuses: &'static [u16],
    /// The server may also hang up.
    hangs_up: bool,
}

impl Client {
    /// One bad request after the other, of every kind.
    pub(super) async fn be_hostile(mut self) {
        let path = format!("/v1/functions/{SYNC}/invocations");
        while self.think().await {
            let number = self.world.ledger.next();
            let small = Ask::default().event(Way::Never, number);
            let api = |headers: &[(&str, &str)], body: &[u8]| self.world.api(&path, headers, body);
            let refused = |name, statuses| Refusal { name, statuses, hangs_up: false };
            let (bytes, refusal) = match self.rng.random_range(0..KINDS) {
                0 => {
                    let part = self.rng.random_range(1..small.len());
                    let whole = api(&[], &small);
                    self.leave(whole.get(..whole.len() - part).unwrap_or_default()).await;
                    continue;
                }
                1 => {
                    let key = [("authorization", "Basic bm86eWVz")];
                    (request("POST", &path, &key, &small), refused("wrong key", &[401]))
                }
                2 => {
                    let cut = small.get(..small.len() - 1).unwrap_or_default();
                    (api(&[], cut), refused("invalid JSON", &[400]))
                }
                3 => (api(&[], b"{\"a\": \"\xff\"}"), refused("not UTF-8", &[400])),
                4 => {
                    let event = sized(Way::Never, number, SYNC_BYTES + 1);
                    (api(&[], &event), Refusal { hangs_up: true, ..refused("6 MB + 1", &[413]) })
                }
                5 => {
                    let event = sized(Way::Never, number, QUEUED_BYTES + 1);
                    let queued = format!("/v1/functions/{QUEUED}/invocations");
                    let bytes = self.world.api(&queued, &[("prefer", "respond-async")], &event);
                    (bytes, Refusal { hangs_up: true, ..refused("128 KB + 1", &[413]) })
                }
                6 => {
                    let unknown = self.world.api("/v1/functions/nobody/invocations", &[], &small);
                    (unknown, refused("unknown function", &[404]))
                }
                7 => {
                    let garbage = b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec();
                    (garbage, Refusal { hangs_up: true, ..refused("garbage", &[400]) })
                }
                8 => {
                    let long = "x".repeat(1_000_000);
                    let bytes = request("POST", &path, &[("x-long", &long)], &small);
                    (bytes, Refusal { hangs_up: true, ..refused("endless head", &[400, 431]) })
                }
                9 => {
                    let ask = Ask { answer: 300_000, ..Ask::default() };
                    let pace = Pace::Slow(16 * 1024, Duration::from_millis(20));
                    self.run(number, ask, pace).await;
                    continue;
                }
                10 => {
                    let ask = Ask { pad: 2_000, ..Ask::default() };
                    self.run(number, ask, Pace::Slow(64, Duration::from_millis(10))).await;
                    continue;
                }
                _ => {
                    let pad = SYNC_BYTES - Ask::default().event(Way::Sync, number).len();
                    self.run(number, Ask { pad, ..Ask::default() }, Pace::Quick).await;
                    continue;
                }
            };
            let at = Instant::now();
            let answered = Line::to(&self.world.access.api).exchange(&bytes, Pace::Quick).await;
            self.refused(number, at, &refusal, answered);
        }
    }

    /// Half a request.
    async fn leave(&self, bytes: &[u8]) {
        self.world.count(Way::Never, "half a request");
        // Where nobody listens, nobody hears half a request either.
        let _ = Line::to(&self.world.access.api).send_and_leave(bytes).await;
    }

    /// A good call at a bad pace, or as large as may be.
    async fn run(&self, number: u64, ask: Ask, pace: Pace) {
        let at = Instant::now();
        let path = format!("/v1/functions/{SYNC}/invocations");
        let bytes = self.world.api(&path, &[], &ask.event(Way::Sync, number));
        let answered = Line::to(&self.world.access.api).exchange(&bytes, pace).await;
        self.world.judge(&Sent { way: Way::Sync, number, ask, at }, answered);
    }

    fn refused(
        &self,
        number: u64,
        at: Instant,
        refusal: &Refusal,
        answered: Result<Answer, Trouble>,
    ) {
        let name = refusal.name;
        match answered {
            Ok(answer) if refusal.statuses.contains(&answer.status) => {
                self.world.count(Way::Never, format!("{name}: {}", answer.status));
            }
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                let body: String = body.chars().take(200).collect();
                self.world.wrong(&format!("{name} (event {number}): {}: {body}", answer.status));
            }
            Err(Trouble::Broken(_)) if refusal.hangs_up => {
                self.world.count(Way::Never, format!("{name}: hung up on"));
            }
            Err(trouble) => self.world.no_answer(Way::Never, number, at, &trouble),
        }
    }
}

/// An event of exactly so many bytes.
fn sized(way: Way, number: u64, bytes: usize) -> Vec<u8> {
    let pad = bytes - Ask::default().event(way, number).len();
    Ask { pad, ..Ask::default() }.event(way, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sized_event_has_its_size() {
        assert_eq!(sized(Way::Never, 12, SYNC_BYTES + 1).len(), SYNC_BYTES + 1);
    }
}
