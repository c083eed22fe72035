//! The sandbox's own API endpoint: a loopback port on which the function calls other functions.
//!
//! Each request must carry the sandbox's token and is then forwarded to the invoker, over a Unix
//! socket, so that this works without a network. The token is made here and never leaves the
//! sandbox: the invoker knows the sandbox by its socket. Where the sandbox shares the host's network,
//! other processes of the host can reach the port, but do not know the token.

mod call_token;
mod forward;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use self::call_token::CallToken;
use self::forward::CallForwarder;
use super::spawn_thread;
use crate::wire::{CALLS_MAX, CALLS_SOCKET, ENDPOINT_VARIABLE, TOKEN_VARIABLE};

/// How long to wait after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// The endpoint, listening. No thread serves it before its first connection: most functions never
/// call another, and a thread would lengthen every cold start.
#[derive(Debug)]
pub(super) struct CallEndpoint {
    listener: TcpListener,
    forwarder: CallForwarder,
    port: u16,
}

/// Bounds the number of connections that are served at a time.
#[derive(Debug, Default)]
struct ConnectionSlots {
    in_use: Mutex<usize>,
    freed: Condvar,
}

impl CallEndpoint {
    /// Listens on a free port of the loopback device and makes a token.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let forwarder =
            CallForwarder { token: CallToken::generate()?, socket: dir.join(CALLS_SOCKET) };
        Ok(Self { listener, forwarder, port })
    }

    /// The variables by which the function finds it.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        [
            (ENDPOINT_VARIABLE, format!("http://127.0.0.1:{}", self.port)),
            (TOKEN_VARIABLE, self.forwarder.token.as_text()),
        ]
    }

    /// Readable when a connection waits.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Serves connections on threads of their own until the shim ends. Further connections wait in
    /// the listener's backlog while [`CALLS_MAX`] are served.
    pub(super) fn serve(self) -> io::Result<()> {
        let Self { listener, forwarder, .. } = self;
        let forwarder = Arc::new(forwarder);
        spawn_thread("calls", move || {
            let slots = Arc::new(ConnectionSlots::default());
            loop {
                slots.acquire();
                let started = listener
                    .accept()
                    .and_then(|(stream, _)| serve_connection(stream, &forwarder, &slots));
                if started.is_err() {
                    // The function has used up descriptors or processes, which may be temporary.
                    slots.release();
                    std::thread::sleep(ACCEPT_RETRY);
                }
            }
        })?;
        Ok(())
    }
}

fn serve_connection(
    stream: TcpStream,
    forwarder: &Arc<CallForwarder>,
    slots: &Arc<ConnectionSlots>,
) -> io::Result<()> {
    let (forwarder, slots) = (Arc::clone(forwarder), Arc::clone(slots));
    spawn_thread("call", move || {
        // The caller sees a broken connection itself.
        let _ = forwarder.forward_one(stream);
        slots.release();
    })?;
    Ok(())
}

impl ConnectionSlots {
    fn acquire(&self) {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_while(in_use, |in_use| CALLS_MAX <= *in_use);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn release(&self) {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.freed.notify_one();
    }
}
