//! Bad packages, names and settings: a clear error, and nothing left behind.

use std::io::{Cursor, Write as _};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::world::{Answer, PYTHON, World, folder, send};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn zip(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    write(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn file(name: &str, text: &[u8]) -> Vec<u8> {
    zip(|zip| {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text).unwrap();
    })
}

async fn upload(world: &World, bytes: Vec<u8>) -> Answer {
    let path = format!("/v1/packages/{}", digest(&bytes));
    send(world.api(Method::PUT, &path).body(bytes)).await
}

#[tokio::test]
async fn bad_packages_are_refused_with_the_reason() {
    let world = World::start("process");
    let good = file("index.py", b"x = 1");
    let bomb = zip(|zip| {
        let zeros = vec![0; 1 << 20];
        zip.start_file("bomb", SimpleFileOptions::default()).unwrap();
        for _ in 0..501 {
            zip.write_all(&zeros).unwrap();
        }
    });
    let crowd = zip(|zip| {
        for n in 0..60_000 {
            zip.start_file(format!("{n}"), SimpleFileOptions::default()).unwrap();
        }
    });
    let link =
        zip(|zip| zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap());
    let cases = [
        ("slip", file("../slip.py", b"")),
        ("absolute", file("/etc/absolute.py", b"")),
        ("link", link),
        ("bomb", bomb),
        ("60,000 entries", crowd),
        ("empty", Vec::new()),
        ("truncated", good[..good.len() - 5].to_vec()),
        ("no zip", b"hello".to_vec()),
    ];
    for (what, bytes) in cases {
        let answer = upload(&world, bytes).await;
        assert_eq!(answer.status.as_u16(), 400, "{what}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().len() > 20, "{what}: {}", answer.json());
    }
    let left: Vec<_> = std::fs::read_dir(world.data.path().join("packages")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let path = format!("/v1/packages/{}", "0".repeat(64));
    assert_eq!(send(world.api(Method::PUT, &path).body(good)).await.status.as_u16(), 400);
}

#[tokio::test]
async fn a_package_without_its_handler_is_refused_at_the_deploy() {
    let world = World::start("process");
    let dir = folder("hello", PYTHON, &[("other.py", "")]);
    let ran = world.hanshu(&["deploy", dir.path().to_str().unwrap()]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("index.py"), "{ran:?}");
    assert_eq!(world.hanshu(&["show", "hello"]).code, 3, "nothing was made");
}

#[tokio::test]
async fn values_out_of_range_are_named() {
    let world = World::start("process");
    let good = file("index.py", b"def main_handler(e, c): return 1\n");
    let code = digest(&good);
    assert!(upload(&world, good).await.status.is_success());
    let base = json!({"runtime": "python", "handler": "index.main_handler", "code": code});
    let deploy = async |name: &str, change: Value| {
        let mut body = base.clone();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        send(world.api(Method::PUT, &format!("/v1/functions/{name}")).json(&body)).await
    };
    let cases = [
        ("x", json!({}), "name"),
        ("fine", json!({"runtime": "cobol"}), "cobol"),
        ("fine", json!({"memoryMb": 100}), "memory"),
        ("fine", json!({"timeoutS": 0}), "timeout"),
        ("fine", json!({"handler": "../x"}), "handler"),
        ("fine", json!({"env": {"A-B": "x"}}), "env"),
        ("fine", json!({"env": {"A": "x".repeat(5000)}}), "4096"),
        ("fine", json!({"colour": "red"}), "colour"),
        ("fine", json!({"triggers": [{"type": "timer", "cron": "61 * * * * * *"}]}), "61"),
        (
            "fine",
            json!({"triggers": [{"type": "timer", "cron": "* * * * *", "timezone": "Mars/X"}]}),
            "Mars/X",
        ),
        ("fine", json!({"triggers": [{"type": "http", "path": "no-slash"}]}), "path"),
        ("fine", json!({"triggers": [{"type": "redis", "url": "http://x", "stream": "s"}]}), "url"),
        (
            "fine",
            json!({"triggers": [{"type": "http", "path": "/a"}, {"type": "http", "path": "/b"}]}),
            "name",
        ),
    ];
    for (name, change, named) in cases {
        let answer = deploy(name, change.clone()).await;
        assert_eq!(answer.status.as_u16(), 400, "{change}: {answer:?}");
        let text = answer.json().to_string();
        assert!(text.contains(named), "{change}: `{named}` is not in {text}");
    }
    assert!(deploy("fine", json!({})).await.status.is_success());
}
