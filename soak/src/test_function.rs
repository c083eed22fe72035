//! The function under load, in Python: it reports to the collector when a run begins and ends, and
//! answers with what it was asked for.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::collector::{HOST, PORT};
use crate::run_ledger::CallKind;

const CODE: &str = r#"
import json, os, socket, time

connection = None

def report(*words):
    """Retries until the collector confirms: a connection may have broken while this was frozen."""
    global connection
    line = (" ".join(str(word) for word in words) + "\n").encode()
    for attempt in range(8):
        try:
            if connection is None:
                connection = socket.create_connection((os.environ["COLLECTOR"], int(os.environ["PORT"])), 1)
            connection.sendall(line)
            if connection.recv(16) == b"ok\n":
                return
        except OSError:
            pass
        if connection is not None:
            connection.close()
            connection = None
    raise RuntimeError("the collector does not answer")

def main_handler(event, context):
    if "Time" in event:
        ask = {"kind": "tick", "number": event["Time"]}
    elif "body" in event and "httpMethod" in event:
        ask = json.loads(event["body"])
    else:
        ask = event
    server, run = os.environ["SERVER"], os.urandom(8).hex()
    report("begin", server, run, ask["kind"], ask["number"], context["request_id"])
    time.sleep(ask.get("sleep", 0))
    if "log" in ask:
        print("x" * ask["log"])
    report("end", server, run)
    answer = {"number": ask["number"], "got": len(ask.get("pad", "")), "pad": "y" * ask.get("answer", 0)}
    if "httpMethod" in event:
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(answer)}
    return answer
"#;

/// One function for each kind of call, so that they do not share concurrency.
pub(crate) const SYNC: &str = "soak-sync";
pub(crate) const QUEUED: &str = "soak-queued";
pub(crate) const WEB: &str = "soak-web";
pub(crate) const CLOCK: &str = "soak-clock";

/// Writes a folder to deploy to the server with this index.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(folder: &Path, server: usize) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("index.py"), CODE)?;
    let mut toml = String::new();
    for (name, more) in [
        (SYNC, "concurrency = 6\ntimeout_s = 10\n"),
        (
            QUEUED,
            "concurrency = 4\ntimeout_s = 10\nasync = { max_attempts = 100, retry_delay_s = 0 }\n",
        ),
        (WEB, "concurrency = 4\ntimeout_s = 10\n"),
        (
            CLOCK,
            "concurrency = 2\ntimeout_s = 10\nasync = { max_attempts = 100, retry_delay_s = 0 }\n",
        ),
    ] {
        toml += &format!(
            "[functions.{name}]\nruntime = \"python\"\nhandler = \"index.main_handler\"\nmemory_mb = 256\n{more}"
        );
        toml += &format!(
            "env = {{ COLLECTOR = \"{HOST}\", PORT = \"{PORT}\", SERVER = \"{server}\" }}\n"
        );
    }
    toml += &format!(
        "[[functions.{WEB}.triggers]]\ntype = \"http\"\npath = \"/soak/{{name}}\"\nmethods = [\"POST\"]\nauth = \"none\"\n"
    );
    toml += &format!(
        "[[functions.{CLOCK}.triggers]]\ntype = \"timer\"\nname = \"second\"\ncron = \"* * * * * * *\"\n"
    );
    fs::write(folder.join("hanshu.toml"), toml)
}

/// What an event asks the function to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WorkRequest {
    /// Bytes of padding in the event.
    pub(crate) pad: usize,
    /// Bytes of padding in the answer.
    pub(crate) answer: usize,
    pub(crate) sleep_ms: u32,
    /// Bytes of output.
    pub(crate) log: usize,
}

impl WorkRequest {
    /// The event as JSON.
    pub(crate) fn event(self, kind: CallKind, number: u64) -> Vec<u8> {
        let Self { pad, answer, sleep_ms, log } = self;
        let mut event = json!({
            "kind": kind.as_str(), "number": number, "sleep": f64::from(sleep_ms) / 1e3,
            "answer": answer, "pad": "x".repeat(pad),
        });
        if log != 0 {
            event["log"] = json!(log);
        }
        event.to_string().into_bytes()
    }
}
