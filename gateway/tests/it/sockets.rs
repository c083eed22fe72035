//! What only a real socket shows.

use std::time::Duration;

use hanshu_gateway::{HttpServerOptions, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::world::{CODE, World, listen};

const PATIENCE: Duration = Duration::from_secs(10);

fn head(world: &World, function: &str, length: usize, more: &str) -> String {
    format!(
        "POST /v1/functions/{function}/invocations HTTP/1.1\r\nhost: x\r\n\
         authorization: {}\r\ncontent-length: {length}\r\n{more}\r\n",
        world.authorization()
    )
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_413_reaches_a_client_that_sends_everything_before_it_reads() {
    let world = World::with(&["hello"]).await;
    let (address, _stop) = listen(world.api.clone()).await;
    for _ in 0..10 {
        let length = 32 * 1024 * 1024;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head(&world, "hello", length, "").as_bytes()).await.unwrap();
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..length / chunk.len() {
            timeout(PATIENCE, stream.write_all(&chunk)).await.unwrap().unwrap();
        }
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"code\":\"event_too_large\""), "{answer}");
    }
}

#[tokio::test]
async fn a_413_comes_before_the_body_for_a_client_that_waits() {
    let world = World::with(&["hello"]).await;
    let (address, _stop) = listen(world.api.clone()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let more = "expect: 100-continue\r\n";
    stream.write_all(head(&world, "hello", 7_000_000, more).as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_at_the_limit() {
    let world = World::with(&["hello"]).await;
    let (address, _stop) = listen(world.api.clone()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = head(&world, "hello", 0, "");
    let head = head.replace("content-length: 0", "transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    for _ in 0..8 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_hangs_up_gives_its_call_up_and_nothing_else() {
    let world = World::with(&["waits", "hello"]).await;
    let (address, _stop) = listen(world.api.clone()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(&world, "waits", 2, "").as_bytes()).await.unwrap();
    stream.write_all(b"{}").await.unwrap();
    timeout(PATIENCE, world.echo.began.notified()).await.unwrap();
    drop(stream);
    timeout(PATIENCE, world.echo.dropped.notified()).await.unwrap();

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(&world, "hello", 2, "connection: close\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"[]").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("\r\n\r\n[]"));
}

#[tokio::test]
async fn a_connection_serves_one_call_after_the_other() {
    let world = World::with(&["hello"]).await;
    let (address, _stop) = listen(world.api.clone()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for number in 100..110 {
        let text = format!("{}{number}", head(&world, "hello", 3, ""));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = [0; 1024];
        let bytes = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = std::str::from_utf8(&answer[..bytes]).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{number}")), "{answer}");
    }
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_lets_running_calls_end() {
    let world = World::with(&["hello", "held"]).await;
    let (address, stop) = listen(world.api.clone()).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let text = format!("{}[]", head(&world, "hello", 2, ""));
    idle.write_all(text.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let _ = timeout(PATIENCE, idle.read(&mut answer)).await.unwrap().unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    let text = format!("{}[]", head(&world, "held", 2, ""));
    busy.write_all(text.as_bytes()).await.unwrap();
    timeout(PATIENCE, world.echo.began.notified()).await.unwrap();

    let mut silent = TcpStream::connect(address).await.unwrap();

    drop(stop);
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut silent).await, "", "who never said a word holds nothing up");
    world.echo.release.notify_one();
    assert!(read_all(&mut busy).await.ends_with("\r\n\r\n\"released\""));
}

/// The real shape: connections on a thread of their own, everything else elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_runtimes_work_together() {
    let world = World::with(&["hello"]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (api, until) = (world.api.clone(), stop.clone());
    let data_plane = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let tasks = TaskTracker::new();
            serve(listener, api, HttpServerOptions::default(), until, tasks.clone()).await;
            tasks.close();
            tasks.wait().await;
        });
    });
    let client = reqwest::Client::new();
    let call = format!("http://{address}/v1/functions/hello/invocations");
    let key = world.authorization();
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    let ask = |request: reqwest::RequestBuilder| request.header("authorization", key).send();
    let answered = ask(client.post(&call).body(large.clone())).await.unwrap();
    assert_eq!(answered.text().await.unwrap(), large);
    let answered = ask(client.post(&call).header("prefer", "respond-async")).await.unwrap();
    assert_eq!(answered.status(), 202);
    let url = format!("http://{address}/v1/packages/{CODE}");
    let answered = ask(client.put(url).body(vec![0; 20_000_000])).await.unwrap();
    assert_eq!(answered.status(), 204);
    assert_eq!(world.packages.kept.lock().unwrap()[&CODE.parse().unwrap()].len(), 20_000_000);
    let answered = ask(client.get(format!("http://{address}/v1/functions"))).await.unwrap();
    assert!(answered.text().await.unwrap().contains("\"hello\""));
    stop.cancel();
    data_plane.join().unwrap();
}
