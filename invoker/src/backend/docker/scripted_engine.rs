//! A Docker engine for tests: a socket that answers each request by a function.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// The answer to `/version`.
pub(super) const VERSION: &str = r#"{"Version":"29.0","ApiVersion":"1.44","MinAPIVersion":"1.24"}"#;

/// From method and path, without the version of the API, to status and body; `None`: no answer, ever.
type EngineAnswer = dyn Fn(&str, &str) -> Option<(u16, String)> + Send + Sync;

pub(super) struct ScriptedEngine {
    pub(super) address: String,
    _dir: tempfile::TempDir,
    _task: AbortOnDropHandle<()>,
}

impl ScriptedEngine {
    pub(super) fn new(
        answer: impl Fn(&str, &str) -> Option<(u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer: Arc<EngineAnswer> = Arc::new(answer);
        let task = tokio_util::task::TaskTracker::new().spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(serve(stream, Arc::clone(&answer)));
            }
        });
        let address = format!("unix://{}", path.display());
        Self { address, _dir: dir, _task: AbortOnDropHandle::new(task) }
    }
}

async fn serve(mut stream: UnixStream, answer: Arc<EngineAnswer>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let path = path.split('?').next().unwrap();
    let path = match path.strip_prefix("/v") {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            rest.find('/').map_or(path, |at| &rest[at..])
        }
        _ => path,
    };
    match answer(method, path) {
        None => std::future::pending().await,
        Some((status, body)) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} ParsedFrame\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    }
}
