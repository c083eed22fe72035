//! The ceiling of a warm call: an HTTP server that forwards bodies to workers over a framed Unix
//! socket, and nothing else.
//!
//! It has no keys, names, deadlines, logs or records, and a client that disconnects loses a worker:
//! it shows what the machine can do and is of no other use. A frame is `length: u32, id: u64` in
//! little endian, then the body; a worker sends an empty frame when it is ready.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Bytes before a frame's body.
const FRAME_HEAD: usize = 12;
/// Largest number of headers of a request.
const HEADERS_MAX: usize = 32;
/// Largest event or answer: twice hanshu's own limit.
const BODY_BYTES_MAX: usize = 12 << 20;
/// Requests to this path set how many workers are used at once.
pub(crate) const WORKERS_PATH: &str = "/-/workers/";
/// Length of the empty frame that a worker sends when it is ready.
const HELLO_BYTES: usize = FRAME_HEAD;

/// Idle workers, the last used first, and waiting callers.
#[derive(Default)]
struct WorkerPoolState {
    idle: Vec<UnixStream>,
    line: VecDeque<oneshot::Sender<UnixStream>>,
    busy: usize,
    busy_max: usize,
}

#[derive(Default)]
struct WorkerPool(Mutex<WorkerPoolState>);

impl WorkerPool {
    fn state(&self) -> MutexGuard<'_, WorkerPoolState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self) -> io::Result<UnixStream> {
        let turn = {
            let mut state = self.state();
            if state.busy < state.busy_max
                && let Some(worker) = state.idle.pop()
            {
                state.busy += 1;
                return Ok(worker);
            }
            let (sender, turn) = oneshot::channel();
            state.line.push_back(sender);
            turn
        };
        turn.await.map_err(io::Error::other)
    }

    /// Passes a worker to the next waiting caller, or makes it idle.
    fn put(&self, mut worker: UnixStream) {
        let mut state = self.state();
        if state.busy <= state.busy_max {
            while let Some(caller) = state.line.pop_front() {
                match caller.send(worker) {
                    Ok(()) => return,
                    Err(back) => worker = back,
                }
            }
        }
        state.busy -= 1;
        state.idle.push(worker);
    }

    fn limit(&self, workers: usize) {
        self.state().busy_max = workers;
    }

    fn workers(&self) -> usize {
        let state = self.state();
        state.idle.len() + state.busy
    }
}

/// Serves until it is killed. Workers connect to `socket`; the port is printed once it listens.
///
/// # Errors
/// If it cannot listen.
pub(crate) async fn serve(socket: &Path) -> anyhow::Result<()> {
    let pool = Arc::new(WorkerPool::default());
    pool.limit(usize::MAX);
    let workers = UnixListener::bind(socket).context("the workers' socket")?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
    let clients = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(io::stdout(), "{}", clients.local_addr()?.port())?;
    let tasks = TaskTracker::new();
    loop {
        tokio::select! {
            worker = workers.accept() => {
                let (mut worker, _) = worker?;
                let pool = pool.clone();
                tasks.spawn(async move {
                    let mut hello = [0; HELLO_BYTES];
                    if worker.read_exact(&mut hello).await.is_ok() {
                        let mut state = pool.state();
                        state.idle.push(worker);
                    }
                });
            }
            client = clients.accept() => {
                let (client, _) = client?;
                client.set_nodelay(true)?;
                let pool = pool.clone();
                tasks.spawn(async move { drop(connection(client, &pool).await) });
            }
        }
    }
}

/// Buffers of a connection, reused for all its requests.
#[derive(Default)]
struct ConnectionBuffers {
    request: Vec<u8>,
    reply: Vec<u8>,
    head: Vec<u8>,
}

async fn connection(mut client: TcpStream, pool: &WorkerPool) -> io::Result<()> {
    let mut buffers = ConnectionBuffers::default();
    loop {
        let Some((head, length)) = read_request(&mut client, &mut buffers.request).await? else {
            return Ok(());
        };
        let body = buffers.request.get(head..head + length).unwrap_or_default();
        buffers.reply.clear();
        if let Some(count) = workers_wanted(&buffers.request) {
            pool.limit(count);
            let text = pool.workers().to_string();
            buffers.reply.extend_from_slice(&[0; FRAME_HEAD]);
            buffers.reply.extend_from_slice(text.as_bytes());
        } else {
            let mut worker = pool.get().await?;
            exchange(&mut worker, body, &mut buffers.reply).await?;
            pool.put(worker);
        }
        let answer = buffers.reply.get(FRAME_HEAD..).unwrap_or_default();
        buffers.head.clear();
        write!(
            buffers.head,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
             x-request-id: 0123456789abcdef0123456789abcdef\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        )?;
        write_both(&mut client, &buffers.head, answer).await?;
        buffers.request.drain(..head + length);
    }
}

/// The lengths of the head and the body once both are read; `None` at the end of the connection.
async fn read_request(
    client: &mut TcpStream,
    request: &mut Vec<u8>,
) -> io::Result<Option<(usize, usize)>> {
    loop {
        if let Some((head, length)) = parsed(request)? {
            if BODY_BYTES_MAX < length {
                return Err(io::Error::other("too long"));
            }
            let all = head + length;
            request.reserve(all.saturating_sub(request.len()));
            while request.len() < all {
                if client.read_buf(request).await? == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some((head, length)));
        }
        request.reserve(4096);
        if client.read_buf(request).await? == 0 {
            return Ok(None);
        }
    }
}

fn parsed(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(head) => {
            let length = request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
                .unwrap_or(0);
            Ok(Some((head, length)))
        }
    }
}

fn workers_wanted(request: &[u8]) -> Option<usize> {
    let line = request.strip_prefix(b"POST ")?.strip_prefix(WORKERS_PATH.as_bytes())?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(line.get(..digits)?).ok()?.parse().ok()
}

async fn exchange(worker: &mut UnixStream, body: &[u8], reply: &mut Vec<u8>) -> io::Result<()> {
    let mut head = [0; FRAME_HEAD];
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let (first, _) = head.split_at_mut(4);
    first.copy_from_slice(&length.to_le_bytes());
    write_both(worker, &head, body).await?;
    reply.reserve(4096);
    loop {
        if worker.read_buf(reply).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(length) = reply.first_chunk::<4>() else { continue };
        let all = FRAME_HEAD + u32::from_le_bytes(*length) as usize;
        if all <= reply.len() {
            return Ok(());
        }
        reply.reserve(all - reply.len());
    }
}

/// One system call, unless the socket's buffer is full.
async fn write_both<W>(socket: &mut W, head: &[u8], body: &[u8]) -> io::Result<()>
where
    W: tokio::io::AsyncWrite + Unpin,
{
    let written = socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
    match head.get(written..) {
        Some(rest) if !rest.is_empty() => {
            socket.write_all(rest).await?;
            socket.write_all(body).await
        }
        _ => socket.write_all(body.get(written - head.len()..).unwrap_or_default()).await,
    }
}
