//! A runtime that only this test knows, added in this one file by one row: it is started, given
//! events and prewarmed, and no other code knows its name.

use hanshu_core::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, PrewarmProfile, Runtime, RuntimeFamily,
    RuntimeImage, RuntimeProfile,
};

use super::*;
use crate::backend::port::CODE_DIR;

/// The row. A runtime that is to stay gets it in a file of `core/src/runtime/` and a line in its table.
static LISP: RuntimeProfile = RuntimeProfile {
    name: "lisp",
    scf_names: &[],
    handler: HandlerRule::Module { files: &["{}.lisp"], dots_are_folders: false },
    command: &[
        CommandWord::HostProgram,
        CommandWord::WithMemoryMb("--dynamic-space-size="),
        CommandWord::Bootstrap,
        CommandWord::Handler,
    ],
    bootstrap: Some("lisp/bootstrap.lisp"),
    host_program: Some(HostProgram { path: "/usr/bin/sbcl", package: "sbcl", setting: None }),
    adapter: AdapterKind::Direct,
    image: RuntimeImage { about: "Lisp functions.", packages: "ca-certificates sbcl" },
    prewarm: Some(PrewarmProfile { memory_mb: 32 }),
    listens: false,
    works_in_children: false,
    mounts: &["/usr/local/lib/quicklisp"],
};

fn lisp(name: &str) -> Arc<Revision> {
    let mut revision = revision(name);
    revision.config.runtime = Runtime::from(RuntimeFamily::of(&LISP));
    Arc::new(revision)
}

#[tokio::test]
async fn a_runtime_is_added_by_one_row() {
    let world = world(|options| options.prewarmed_min = 1);
    let (first, second) = (lisp("first"), lisp("second"));
    assert_eq!(returned(&world.call_of(&first, Bytes::from_static(b"1")).await), b"1");
    world.invoker.expect(std::iter::once(&second));
    let ready = |world: &InvokerWorld| world.invoker.node.prewarm.ready(RuntimeFamily::of(&LISP));
    world.until(|world| 1 <= ready(world)).await;
    assert_eq!(returned(&world.call_of(&second, Bytes::from_static(b"2")).await), b"2");

    let started = world.backend.0.specs.lock().unwrap().clone();
    let (spec, prewarmed) = (&started[0], &started[1]);
    assert!(spec.image.starts_with("hanshu/lisp:"), "{}", spec.image);
    assert_ne!(spec.image, crate::backend::image_recipe::image_reference(RuntimeFamily::PYTHON));
    let targets: Vec<_> = spec.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
    assert_eq!(targets, [CODE_DIR, "/usr/local/lib/quicklisp"]);
    assert_eq!(prewarmed.mounts.len(), 1, "its code comes later");
    assert!(!spec.listens);

    let start = world.backend.0.starts.lock().unwrap()[0].clone();
    assert_eq!(
        start.argv,
        [
            "/usr/bin/sbcl",
            "--dynamic-space-size=128",
            "/var/runtime/lisp/bootstrap.lisp",
            "/var/user/index.main_handler",
        ]
    );
    world.close().await;
}
