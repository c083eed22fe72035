//! Stories of cold starts that find a prewarmed sandbox, and of those that do not.

use hanshu_core::RuntimeFamily;

use super::*;
use crate::scheduling::prewarm::PrewarmPool;

fn prewarm_world(change: impl FnOnce(&mut InvokerOptions)) -> InvokerWorld {
    world(|options| {
        options.prewarmed_min = 1;
        change(options);
    })
}

impl InvokerWorld {
    fn prewarm(&self) -> &PrewarmPool {
        &self.invoker.node.prewarm
    }

    fn given(&self) -> u32 {
        self.backend.0.given.load(Ordering::Relaxed)
    }

    async fn expect_and_wait(&self, revision: &Arc<Revision>) {
        self.invoker.expect(std::iter::once(revision));
        self.until(|world| world.prewarm().ready(RuntimeFamily::PYTHON) == 1).await;
    }
}

fn named(name: &str, change: impl FnOnce(&mut Revision)) -> Arc<Revision> {
    let mut revision = revision(name);
    change(&mut revision);
    Arc::new(revision)
}

async fn call(world: &InvokerWorld, revision: &Arc<Revision>) -> Outcome {
    let outcome = world.call_of(revision, Bytes::from_static(b"1")).await;
    assert_eq!(returned(&outcome), b"1");
    outcome
}

#[tokio::test]
async fn a_cold_call_takes_a_prewarmed_sandbox_and_another_is_made() {
    let world = prewarm_world(|options| options.freeze_after_ms = 60_000);
    let (first, second) = (named("first", |_| ()), named("second", |_| ()));
    world.expect_and_wait(&first).await;
    assert_eq!(world.backend.0.frozen.load(Ordering::Relaxed), 1, "it waits frozen");
    for revision in [&first, &second] {
        let outcome = call(&world, revision).await;
        assert!(outcome.report.cold && outcome.report.init.is_some());
        world.until(|world| world.prewarm().ready(RuntimeFamily::PYTHON) == 1).await;
        assert!(!call(&world, revision).await.report.cold, "it serves this function from now on");
    }
    let counts = &world.backend.0;
    assert_eq!((world.given(), counts.thawed.load(Ordering::Relaxed)), (2, 2));
    assert_eq!((world.started(), counts.prewarm.load(Ordering::Relaxed)), (3, 3));
    let from_prewarmed = |world: &InvokerWorld| {
        let records = world.journal.records.lock().unwrap();
        records.iter().filter_map(|record| record.cold_start).all(|cold| cold.from_prewarmed)
    };
    assert!(from_prewarmed(&world));
    world.close().await;
}

#[tokio::test]
async fn what_a_prewarmed_sandbox_cannot_be_is_started_afresh() {
    let world = prewarm_world(|_| ());
    world.expect_and_wait(&named("hello", |_| ())).await;
    let early = |revision: &mut Revision| {
        revision.config.env.insert("LD_PRELOAD".into(), "/var/user/own.so".into());
    };
    let shell = |revision: &mut Revision| revision.config.runtime = "shell".parse().unwrap();
    let walled = |revision: &mut Revision| revision.config.network = Some(true);
    for revision in [named("early", early), named("shell", shell), named("walled", walled)] {
        assert!(call(&world, &revision).await.report.cold);
    }
    assert_eq!(world.given(), 0);
    world.close().await;
}

#[tokio::test]
async fn a_prewarmed_sandbox_that_is_lost_costs_its_caller_nothing_but_time() {
    let world = prewarm_world(|_| ());
    let hello = named("hello", |_| ());
    world.expect_and_wait(&hello).await;
    world.backend.0.no_code.store(true, Ordering::Relaxed);
    assert!(call(&world, &hello).await.report.cold);
    assert_eq!(world.given(), 0);
    world.close().await;
}

#[tokio::test]
async fn a_function_that_cannot_be_loaded_is_told_so_in_a_prewarmed_sandbox_too() {
    let world = prewarm_world(|_| ());
    let broken = named("broken", |revision| revision.config.handler = "init_fails".into());
    world.expect_and_wait(&broken).await;
    let outcome = world.call_of(&broken, Bytes::from_static(b"1")).await;
    let Verdict::Failed(failure) = outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(failure.status_code, StatusCode::HandlerNotFound);
    assert_eq!(world.given(), 1);
    world.close().await;
}

#[tokio::test]
async fn zero_switches_prewarmed_sandbox_off_and_so_does_the_backend() {
    for (min, refused) in [(0, false), (1, true)] {
        let world = world(|options| options.prewarmed_min = min);
        let world = if refused { refusing(world) } else { world };
        let hello = named("hello", |_| ());
        world.invoker.expect(std::iter::once(&hello));
        call(&world, &hello).await;
        assert_eq!((world.started(), world.prewarm().ready(RuntimeFamily::PYTHON)), (1, 0));
        world.close().await;
    }
}

/// The same world with an invoker whose backend makes no prewarmed sandboxes.
fn refusing(mut world: InvokerWorld) -> InvokerWorld {
    world.backend.0.no_prewarmed.store(true, Ordering::Relaxed);
    let launcher = &world.invoker.node.launcher;
    let options = InvokerOptions { prewarmed_min: 1, ..InvokerOptions::clone(&launcher.options) };
    let ports = InvokerPorts {
        backend: Arc::new(world.backend.clone()),
        packages: Arc::new(EmptyPackages),
        journal: Arc::clone(&world.journal) as _,
        clock: Arc::clone(&launcher.sink.clock),
        calls: Arc::new(NoFunctionCalls),
    };
    let general = world.general.as_ref().unwrap().handle().clone();
    world.invoker = Invoker::new(options, ports, NodeId::new(), general);
    world
}

#[tokio::test]
async fn a_prewarmed_sandbox_has_little_room_and_gives_way_to_functions() {
    // Room for two functions and no prewarmed sandbox beside them.
    let world = prewarm_world(|options| options.memory_mb = 256);
    let functions: Vec<_> = ["one", "two", "three", "four"].map(|name| named(name, |_| ())).into();
    world.expect_and_wait(&functions[0]).await;
    call(&world, &functions[0]).await;
    call(&world, &functions[1]).await;
    assert_eq!(world.backend.0.stopped.load(Ordering::Relaxed), world.started() - 2);
    assert_eq!(world.invoker.sandboxes().idle, 2, "no sandbox went for a prewarmed sandbox");
    call(&world, &functions[0]).await;
    let large = named("large", |revision| revision.config.memory_mb = 256);
    call(&world, &large).await;
    assert_eq!(world.prewarm().ready(RuntimeFamily::PYTHON), 0);
    world.close().await;
}

#[tokio::test]
async fn where_starts_wait_for_room_a_prewarmed_sandbox_takes_that_of_what_nobody_uses() {
    let world = prewarm_world(|options| options.memory_mb = 512);
    let functions: Vec<_> = (0..8).map(|number| named(&format!("turn-{number}"), |_| ())).collect();
    world.expect_and_wait(&functions[0]).await;
    for (number, revision) in functions.iter().chain(&functions).enumerate() {
        assert!(call(&world, revision).await.report.cold, "four have room, eight take turns");
        // The fourth has the last room, and nobody has waited for any yet.
        let full = number == 3;
        assert!(!full || world.invoker.sandboxes().idle == 4);
        world.until(|world| full || 1 <= world.prewarm().ready(RuntimeFamily::PYTHON)).await;
    }
    assert_eq!(world.given(), 15, "all but the first that had to wait for room");
    assert_eq!(world.invoker.sandboxes().idle, 3);
    world.close().await;
}
