//! A client of Go's `net/rpc`: one connection, one call at a time.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use super::decode::{GobError, GobMessage, GobTypes, GobValue};
use super::encode::define;
use super::messages::{
    INVOKE_TYPE, InvokeReply, InvokeRequest, PING_TYPE, REQUEST_TYPE, RpcResponse, TIMESTAMP_TYPE,
    split_invoke, write_ping, write_request,
};
use crate::wire::BODY_BYTES_MAX;

/// The most bytes of a message: the largest return value, and as much again for an error's stack.
const MESSAGE_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX as u64;
/// A message over the limit is skipped up to this size, so that the connection remains usable. Go
/// sends no message over 1 GiB.
const SKIP_BYTES_MAX: u64 = 1 << 30;
/// How many definitions may precede a value.
const DEFINITIONS_MAX: usize = 1_000;
/// Bytes of buffer that are kept between messages.
const KEPT_BYTES: usize = 64 * 1024;
const READ_AHEAD: usize = 16 * 1024;
/// Events up to this many bytes are sent in one write.
const TOGETHER_MAX: usize = 64 * 1024;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum RpcError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The connection can no longer be used.
    #[error("{0}")]
    Broken(String),
    /// The function has no such method, or could not take the argument.
    #[error("{0}")]
    Refused(String),
    /// The reply was over the limit and has been skipped.
    #[error("the reply is too large")]
    TooLarge,
}

impl From<GobError> for RpcError {
    fn from(error: GobError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// The platform's side of the connection.
#[derive(Debug)]
pub(super) struct RpcClient<S: Read = TcpStream> {
    stream: BufReader<S>,
    types: GobTypes,
    sequence: u64,
    knows_request: bool,
    knows_invoke: bool,
    message: Vec<u8>,
}

impl<S: Read + Write> RpcClient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_AHEAD, stream),
            types: GobTypes::new(),
            sequence: 0,
            knows_request: false,
            knows_invoke: false,
            message: Vec::new(),
        }
    }

    pub(super) fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// `Function.Ping`, which is called once.
    pub(super) fn ping(&mut self) -> Result<(), RpcError> {
        let mut out = self.call("Function.Ping");
        define(&mut out, &PING_TYPE);
        write_ping(&mut out);
        self.stream.get_mut().write_all(&out)?;
        self.take_reply(|_| ())
    }

    /// `Function.Invoke` on an event, whose bytes are freed as soon as they are sent: they count
    /// towards the function's memory.
    pub(super) fn invoke(
        &mut self,
        request: &InvokeRequest<'_>,
        payload: Vec<u8>,
    ) -> Result<InvokeReply, RpcError> {
        let mut out = self.call("Function.Invoke");
        if !self.knows_invoke {
            define(&mut out, &INVOKE_TYPE);
            define(&mut out, &TIMESTAMP_TYPE);
            self.knows_invoke = true;
        }
        let (mut before, mut after) = split_invoke(request, payload.len());
        out.append(&mut before);
        if payload.len() <= TOGETHER_MAX {
            out.extend_from_slice(&payload);
            out.append(&mut after);
            self.stream.get_mut().write_all(&out)?;
        } else {
            self.stream.get_mut().write_all(&out)?;
            self.stream.get_mut().write_all(&payload)?;
            self.stream.get_mut().write_all(&after)?;
        }
        drop((payload, out));
        self.take_reply(InvokeReply::from_value)
    }

    /// The encoded request header of a call.
    fn call(&mut self, method: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.knows_request {
            define(&mut out, &REQUEST_TYPE);
            self.knows_request = true;
        }
        write_request(&mut out, method, self.sequence);
        out
    }

    /// Reads a response header and the value that follows it, even after an error.
    fn take_reply<T>(&mut self, convert: impl FnOnce(&GobValue<'_>) -> T) -> Result<T, RpcError> {
        let response = self.read_value(RpcResponse::from_value)?;
        if response.sequence != self.sequence {
            return Err(RpcError::Broken("a reply belongs to another call".to_owned()));
        }
        self.sequence += 1;
        let reply = self.read_value(convert);
        if response.error.is_empty() {
            return reply;
        }
        match reply {
            Ok(_) | Err(RpcError::TooLarge | RpcError::Refused(_)) => {
                Err(RpcError::Refused(response.error))
            }
            Err(error) => Err(error),
        }
    }

    fn read_value<T>(&mut self, convert: impl FnOnce(&GobValue<'_>) -> T) -> Result<T, RpcError> {
        for _ in 0..DEFINITIONS_MAX {
            self.read_message()?;
            match self.types.read(&self.message)? {
                GobMessage::Defined => {}
                GobMessage::Value(value) => {
                    let converted = convert(&value);
                    drop(value);
                    self.message.clear();
                    self.message.shrink_to(KEPT_BYTES);
                    return Ok(converted);
                }
            }
        }
        Err(GobError::Definition.into())
    }

    fn read_message(&mut self) -> Result<(), RpcError> {
        let len = self.read_len()?;
        if MESSAGE_BYTES_MAX < len {
            return Err(self.skip(len));
        }
        self.message.clear();
        let read = self.stream.by_ref().take(len).read_to_end(&mut self.message)?;
        if u64::try_from(read).is_ok_and(|read| read < len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    /// Reads a message's length, encoded as gob encodes unsigned numbers.
    fn read_len(&mut self) -> Result<u64, RpcError> {
        let mut bytes = [0; 9];
        let (first, rest) = bytes.split_at_mut(1);
        self.stream.read_exact(first)?;
        let first = first.first().copied().unwrap_or(0);
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let count = usize::from(first.wrapping_neg());
        let number = rest.get_mut(..count).ok_or(GobError::Number)?;
        self.stream.read_exact(number)?;
        Ok(number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn skip(&mut self, len: u64) -> RpcError {
        if SKIP_BYTES_MAX < len {
            return RpcError::Broken(format!("a message has {len} bytes"));
        }
        match io::copy(&mut self.stream.by_ref().take(len), &mut io::sink()) {
            Ok(skipped) if skipped == len => RpcError::TooLarge,
            Ok(_) => RpcError::Io(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => RpcError::Io(error),
        }
    }
}
