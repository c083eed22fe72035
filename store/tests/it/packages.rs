//! The contract of `PackageStore`, on a folder.

use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{PackageError, PackageStore};
use hanshu_core::{Clock as _, Digest, ManualClock, SystemClock};
use hanshu_store::{FolderPackages, UnpackLimits};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const LIMITS: UnpackLimits = UnpackLimits { bytes_max: 100_000, entries_max: 50 };

struct TestPackages {
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: FolderPackages,
}

fn world() -> TestPackages {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let store = FolderPackages::open(folder.path(), LIMITS, clock.clone()).unwrap();
    TestPackages { folder, clock, store }
}

fn digest(zip: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(zip).into())
}

/// Names, Unix modes and contents; a name that ends in `/` is a folder.
fn zip_of(entries: &[(&str, Option<u32>, &[u8])]) -> Bytes {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let mut options = SimpleFileOptions::default();
        if let Some(mode) = mode {
            options = options.unix_permissions(*mode);
        }
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner().into()
}

fn hello() -> Bytes {
    zip_of(&[("index.py", Some(0o640), b"def main_handler(event, context): pass\n")])
}

fn replaced(zip: &Bytes, from: &[u8], to: &[u8]) -> Bytes {
    assert_eq!(from.len(), to.len());
    let mut bytes = zip.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(0 < found);
    bytes.into()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The zip is refused for this reason, and nothing is left of it.
async fn check_refused(zip: Bytes, reason: &str) {
    let world = world();
    let error = world.store.put(&digest(&zip), zip).await.unwrap_err();
    assert!(matches!(error, PackageError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(reason), "expected `{reason}`: {error}");
    assert_eq!(names(world.folder.path()), Vec::<String>::new(), "{error}");
}

#[tokio::test]
async fn a_package_is_kept_as_it_came_and_unpacked() {
    let world = world();
    let zip = hello();
    let id = digest(&zip);
    assert!(!world.store.has(&id).await);
    world.store.put(&id, zip.clone()).await.unwrap();
    assert!(world.store.has(&id).await);
    assert_eq!(world.store.zip(&id).await.unwrap(), zip);
    let folder = world.store.folder(&id).await.unwrap();
    let code = std::fs::read_to_string(folder.join("index.py")).unwrap();
    assert!(code.starts_with("def main_handler"));
}

#[tokio::test]
async fn code_is_for_all_to_read_and_for_none_to_write() {
    let world = world();
    let zip = zip_of(&[
        ("lib/", Some(0o700), b""),
        ("lib/secret.py", Some(0o600), b"x = 1"),
        ("bootstrap", Some(0o700), b"anything"),
        ("run.sh", None, b"#!/bin/sh\necho hi\n"),
        ("tool", Some(0o644), b"\x7fELF..."),
        ("setuid", Some(0o4755), b"x"),
        ("a/b/c.txt", None, b""),
    ]);
    world.store.put(&digest(&zip), zip.clone()).await.unwrap();
    let folder = world.store.folder(&digest(&zip)).await.unwrap();
    for (name, expected) in [
        ("", 0o555),
        ("lib", 0o555),
        ("lib/secret.py", 0o444),
        ("bootstrap", 0o555),
        ("run.sh", 0o555),
        ("tool", 0o555),
        ("setuid", 0o555),
        ("a/b", 0o555),
        ("a/b/c.txt", 0o444),
    ] {
        assert_eq!(mode(&folder.join(name)), expected, "{name}");
    }
}

#[tokio::test]
async fn what_leads_outside_is_refused() {
    check_refused(zip_of(&[("../evil", None, b"x")]), "`../evil` leads out").await;
    check_refused(zip_of(&[("ok", None, b"x"), ("a/../../b", None, b"x")]), "leads out").await;
    let absolute = replaced(&zip_of(&[("Xetc/passwd", None, b"x")]), b"Xetc", b"/etc");
    check_refused(absolute, "`/etc/passwd` has an absolute path").await;
}

#[tokio::test]
async fn links_are_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let zip = writer.finish().unwrap().into_inner().into();
    check_refused(zip, "entry `link` is a symbolic link").await;
}

#[tokio::test]
async fn bombs_are_refused() {
    let zeros = vec![0; 100_001];
    let bomb = zip_of(&[("zeros", None, &zeros)]);
    assert!(bomb.len() < 1000);
    check_refused(bomb.clone(), "entry `zeros` makes the package larger than 100000 bytes").await;
    // One that lies about its size: 100,001 = 0x000186a1.
    let liar = replaced(&bomb, &[0xa1, 0x86, 0x01, 0x00], &[0x0a, 0x00, 0x00, 0x00]);
    check_refused(liar, "entry `zeros` ").await;
    let half = vec![0; 60_000];
    check_refused(zip_of(&[("a", None, &half), ("b", None, &half)]), "entry `b` makes").await;
}

#[tokio::test]
async fn too_many_entries_are_refused() {
    let names: Vec<String> = (0..51).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), None, &b""[..])).collect();
    check_refused(zip_of(&entries), "at most 50").await;
}

#[tokio::test]
async fn a_name_that_comes_twice_is_refused() {
    let twice = replaced(&zip_of(&[("aa", None, b"1"), ("ab", None, b"2")]), b"ab", b"aa");
    check_refused(twice, "entry `aa` comes twice").await;
}

#[tokio::test]
async fn a_name_that_is_not_utf_8_is_refused() {
    let zip = replaced(&zip_of(&[("cafX.py", None, b"x")]), b"cafX", b"caf\xe9");
    check_refused(zip, "not UTF-8").await;
}

#[tokio::test]
async fn what_is_no_whole_zip_is_refused() {
    check_refused(Bytes::new(), "0 bytes").await;
    check_refused(Bytes::from_static(b"#!/bin/sh\necho hi\n"), "not a whole zip").await;
    let zip = hello();
    check_refused(zip.slice(..zip.len() - 10), "not a whole zip").await;
    check_refused(zip_of(&[]), "holds no file").await;
}

#[tokio::test]
async fn damaged_content_is_refused() {
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("good.txt", options).unwrap();
    writer.write_all(b"good").unwrap();
    writer.start_file("bad.txt", options).unwrap();
    writer.write_all(b"content").unwrap();
    let zip: Bytes = writer.finish().unwrap().into_inner().into();
    let zip = replaced(&zip, b"content", b"c0ntent");
    check_refused(zip, "entry `bad.txt` cannot be unpacked").await;
}

#[tokio::test]
async fn an_encrypted_entry_is_refused() {
    let zip = zip_of(&[("secret", None, b"x")]);
    let mut bytes = zip.to_vec();
    let local = 0;
    let central = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    bytes[local + 6] |= 1;
    bytes[central + 8] |= 1;
    check_refused(bytes.into(), "entry `secret` is encrypted").await;
}

#[tokio::test]
async fn bytes_that_the_digest_does_not_name_are_refused() {
    let world = world();
    let other = digest(b"other");
    let error = world.store.put(&other, hello()).await.unwrap_err();
    assert!(matches!(error, PackageError::Digest { .. }), "{error:?}");
    assert_eq!(names(world.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_here_is_missing() {
    let world = world();
    let absent = digest(b"absent");
    for error in [
        world.store.zip(&absent).await.err(),
        world.store.folder(&absent).await.map(|_| Bytes::new()).err(),
    ] {
        assert!(matches!(error, Some(PackageError::Missing(_))), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_the_next_start() {
    let world = world();
    let zip = hello();
    let id = digest(&zip);
    world.store.put(&id, zip).await.unwrap();
    let path = world.folder.path();
    std::fs::create_dir_all(path.join(".tmp-half/folder")).unwrap();
    std::fs::write(path.join(".tmp-half/folder/file"), "x").unwrap();
    std::fs::set_permissions(path.join(".tmp-half/folder"), PermissionsExt::from_mode(0o555))
        .unwrap();
    std::fs::write(path.join(".tmp-zip"), "x").unwrap();
    let again = FolderPackages::open(path, LIMITS, world.clock.clone()).unwrap();
    assert!(again.has(&id).await, "what was whole is still there");
    assert_eq!(names(path).len(), 2, "{:?}", names(path));
}

#[tokio::test]
async fn a_folder_that_is_gone_is_made_again_from_its_zip() {
    let world = world();
    let zip = hello();
    let id = digest(&zip);
    world.store.put(&id, zip).await.unwrap();
    std::fs::remove_dir_all(world.folder.path().join(id.as_str())).unwrap();
    let folder = world.store.folder(&id).await.unwrap();
    assert!(folder.join("index.py").exists());
}

#[tokio::test]
async fn one_package_put_by_many_at_once_is_there_once() {
    let world = world();
    let zip = hello();
    let id = digest(&zip);
    let puts = (0..8).map(|_| world.store.put(&id, zip.clone()));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(names(world.folder.path()).len(), 2, "{:?}", names(world.folder.path()));
    assert!(world.store.has(&id).await);
}

#[tokio::test]
async fn collecting_spares_what_is_named_and_what_is_young() {
    let world = world();
    let zips: Vec<Bytes> = (0..3u8).map(|n| zip_of(&[("f", None, &[n])])).collect();
    let ids: Vec<Digest> = zips.iter().map(|zip| digest(zip)).collect();
    world.store.put(&ids[0], zips[0].clone()).await.unwrap();
    world.store.put(&ids[1], zips[1].clone()).await.unwrap();
    assert_eq!(world.store.collect(&[]).await.unwrap(), 0, "all are young");
    world.clock.advance(Duration::from_secs(3700));
    world.store.put(&ids[2], zips[2].clone()).await.unwrap();
    assert_eq!(world.store.collect(&ids[..1]).await.unwrap(), 1);
    assert!(world.store.has(&ids[0]).await, "named");
    assert!(!world.store.has(&ids[1]).await, "old, and nobody names it");
    assert!(world.store.has(&ids[2]).await, "young");
    assert_eq!(names(world.folder.path()).len(), 4);
}

#[tokio::test]
async fn a_package_that_a_deploy_asks_for_counts_as_young() {
    let world = world();
    let zip = hello();
    let id = digest(&zip);
    world.store.put(&id, zip.clone()).await.unwrap();
    world.clock.advance(Duration::from_secs(3700));
    assert!(world.store.has(&id).await);
    assert_eq!(world.store.collect(&[]).await.unwrap(), 0);
    world.clock.advance(Duration::from_secs(3700));
    assert_eq!(world.store.collect(&[]).await.unwrap(), 1);
}
