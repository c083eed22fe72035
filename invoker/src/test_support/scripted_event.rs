//! What a scripted sandbox does with an event.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use hanshu_runtimes::wire::{FrameHeader, FrameKind, RuntimeFailure};
use serde_json::Value;

use super::{IoResult, ScriptedProcess, send, send_json};

/// Does what the event says; `false`: the process ends.
pub(super) fn run_event(
    data: &UnixStream,
    mut out: &File,
    id: u64,
    event: &[u8],
    inside: &ScriptedProcess,
) -> IoResult<bool> {
    let command: Value = serde_json::from_slice(event).unwrap_or_default();
    let number = |name: &str| command[name].as_u64().unwrap_or_default();
    let result = |id| FrameHeader::new(FrameKind::Result, id, 4).unwrap();
    let reply = |body: &[u8]| {
        send(data, FrameHeader::new(FrameKind::Result, id, body.len()).unwrap(), body)
    };
    match command["do"].as_str().unwrap_or_default() {
        "sleep" => thread::sleep(Duration::from_millis(number("ms"))),
        "hang" => {
            hang(inside);
            return Ok(true);
        }
        "wait_for_term" => match wait_for_term(data, id, &command, inside)? {
            AfterTerm::Answer => {}
            AfterTerm::Exit => return Ok(false),
            AfterTerm::Answered => return Ok(true),
        },
        "print" => out.write_all(command["text"].as_str().unwrap().as_bytes())?,
        "spam" => {
            let line = format!("{}\n", "s".repeat(99));
            for _ in 0..number("lines") {
                out.write_all(line.as_bytes())?;
            }
        }
        "print_late" => {
            reply(b"null")?;
            thread::sleep(Duration::from_millis(50));
            out.write_all(b"too late\n")?;
            return Ok(true);
        }
        "fail" => {
            send_json(data, FrameKind::Failed, id, &RuntimeFailure::new(430, "boom"))?;
            return Ok(true);
        }
        "last" => {
            send(data, result(id).last(), b"null")?;
            return Ok(true);
        }
        "exit" => return Ok(false),
        // Stops reading, and ends while the next event is being sent.
        "stop_reading" => {
            reply(b"null")?;
            thread::sleep(Duration::from_millis(100));
            inside.sockets.lock().unwrap().clear();
            return Err(ErrorKind::ConnectionAborted.into());
        }
        "oom" => {
            inside.oom_kills.fetch_add(1, Ordering::Relaxed);
            inside.kill();
            return Ok(true);
        }
        "foreign" | "twice" | "garbage" => {
            break_protocol(data, id, command["do"].as_str().unwrap())?;
            return Ok(true);
        }
        "part" => {
            send_part(data, id, number("bytes"), inside, command["then"].as_str().unwrap())?;
            return Ok(true);
        }
        "big" => {
            reply(&vec![b'1'; usize::try_from(number("bytes")).unwrap()])?;
            return Ok(true);
        }
        _ => {}
    }
    reply(event)?;
    Ok(true)
}

/// What is left to do after SIGTERM.
enum AfterTerm {
    Answer,
    Exit,
    Answered,
}

/// Goes on until SIGTERM, and then does as `then` says.
fn wait_for_term(
    data: &UnixStream,
    id: u64,
    command: &Value,
    inside: &ScriptedProcess,
) -> IoResult<AfterTerm> {
    inside.counts.waiting_for_term.fetch_add(1, Ordering::Relaxed);
    while inside.terminated.load(Ordering::Relaxed) == 0 && !inside.killed() {
        thread::sleep(Duration::from_millis(1));
    }
    match command["then"].as_str().unwrap_or_default() {
        "exit" => Ok(AfterTerm::Exit),
        "hang" => {
            hang(inside);
            Ok(AfterTerm::Answered)
        }
        "fail" => {
            send_json(data, FrameKind::Failed, id, &RuntimeFailure::new(439, "SIGTERM"))?;
            Ok(AfterTerm::Answered)
        }
        _ => Ok(AfterTerm::Answer),
    }
}

fn hang(inside: &ScriptedProcess) {
    while !inside.killed() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Answers another event, answers twice, or sends no frame at all.
fn break_protocol(mut data: &UnixStream, id: u64, how: &str) -> IoResult<()> {
    let result = |id| FrameHeader::new(FrameKind::Result, id, 4).unwrap();
    match how {
        "foreign" => send(data, result(id ^ 1), b"null"),
        "twice" => {
            send(data, result(id), b"null")?;
            send(data, result(id), b"null")
        }
        _ => data.write_all(&[0xff; 16]),
    }
}

/// Sends a part of the answer, and then ends, sends nothing more, or sends garbage.
fn send_part(
    mut data: &UnixStream,
    id: u64,
    bytes: u64,
    inside: &ScriptedProcess,
    then: &str,
) -> IoResult<()> {
    let whole =
        [&FrameHeader::new(FrameKind::Result, id, 4).unwrap().encode()[..], b"null"].concat();
    data.write_all(&whole[..usize::try_from(bytes).unwrap()])?;
    match then {
        "end" => inside.kill(),
        "garbage" => data.write_all(&[0xff; 64])?,
        _ => {}
    }
    Ok(())
}
