//! Parts of the warm path, for `bench/instructions` to count their instructions. Only with the feature
//! `bench-hooks`; not part of the program.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hanshu_core::{Origin, RequestId};
use hanshu_runtimes::wire::{FrameHeader, FrameKind, HEADER_LEN, INVOKE_HEAD_LEN};
use tokio::time::Instant;

use crate::sandbox::exchange::{DataConnection, EventExchange};
use crate::scheduling::pool::state::{
    LaneId, PoolAction, PoolInput, PoolRules, PoolState, SandboxKey, WaiterId,
};

/// How long the runtime waits for an event.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool's decisions for warm events, one after the other.
#[derive(Debug)]
pub struct PoolDecisionBench {
    state: PoolState,
    now: Instant,
    waiter: u64,
}

impl PoolDecisionBench {
    const LANE: LaneId = LaneId(0);

    /// Those of a pool with some idle sandboxes.
    #[must_use]
    pub fn of_pool(sandboxes: u32) -> Self {
        let rules = PoolRules {
            concurrency: None,
            waiting_max: 1_000,
            starts_max: 1_000,
            cores: 2,
            target_wait: Duration::ZERO,
            keep_alive: Duration::from_secs(300),
        };
        let mut new = Self { state: PoolState::new(rules), now: Instant::now(), waiter: 0 };
        let mut granted = Vec::new();
        for _ in 0..sandboxes {
            for action in new.request() {
                if let PoolAction::Start { key, .. } = action {
                    let took = Duration::from_millis(100);
                    new.state.on(new.now, PoolInput::Started { key, took });
                    granted.push(key);
                }
            }
        }
        for key in granted {
            new.release(key);
        }
        new
    }

    /// Grants a sandbox and releases it; `false` if none was idle.
    pub fn turn(&mut self) -> bool {
        self.now += Duration::from_micros(50);
        let actions = self.request();
        let [PoolAction::Grant { key, .. }] = actions[..] else { return false };
        self.release(key);
        true
    }

    fn request(&mut self) -> crate::scheduling::pool::state::PoolActions {
        self.waiter += 1;
        let waiter = WaiterId(self.waiter);
        self.state.on(self.now, PoolInput::Requested { lane: Self::LANE, waiter })
    }

    fn release(&mut self, key: SandboxKey) {
        self.state.on(self.now, PoolInput::Released { key, healthy: true });
    }
}

/// Events over a socket, with a minimal runtime at its other end, on one thread.
#[derive(Debug)]
pub struct ExchangeBench {
    conn: DataConnection,
    runtime: UnixStream,
    event: Vec<u8>,
}

impl ExchangeBench {
    /// Connects the two. Call it, as the rest, on an async runtime.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn connect() -> io::Result<Self> {
        let (ours, runtime) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        runtime.set_read_timeout(Some(RUNTIME_TIMEOUT))?;
        Ok(Self { conn: DataConnection::new(ours)?, runtime, event: Vec::new() })
    }

    /// One event, which the runtime returns.
    ///
    /// # Errors
    /// The answer was another one.
    pub async fn turn(&mut self, payload: &Bytes) -> io::Result<()> {
        let mut exchange =
            EventExchange::new(RequestId::new(), &Origin::Direct, 1_000, payload.clone())
                .map_err(io::Error::other)?;
        let mut driven = pin!(exchange.drive(&mut self.conn));
        // Sends the event, which fits into the socket.
        let early = driven.as_mut().now_or_never();
        if early.is_some() {
            return Err(io::Error::other("answered before it was asked"));
        }
        self.event.resize(HEADER_LEN + INVOKE_HEAD_LEN + payload.len(), 0);
        self.runtime.read_exact(&mut self.event)?;
        let (header, rest) = self.event.split_first_chunk().ok_or(ErrorKind::UnexpectedEof)?;
        let event = FrameHeader::decode(header).map_err(io::Error::other)?.event;
        let answer = FrameHeader::new(FrameKind::Result, event, payload.len())
            .map_err(io::Error::other)?
            .encode();
        let body = rest.get(INVOKE_HEAD_LEN..).unwrap_or_default();
        self.runtime.write_all(&[&answer, body].concat())?;
        let answer = driven.await.map_err(io::Error::other)?;
        let same = answer.result.is_ok_and(|result| result == payload);
        if same { Ok(()) } else { Err(io::Error::other("another answer than was given")) }
    }
}
