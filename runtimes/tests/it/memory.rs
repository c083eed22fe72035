//! Want of memory, in a control group of the test's own. Needs root; CI has it.

use std::fs;
use std::path::{Path, PathBuf};

use hanshu_runtimes::wire::{FrameKind, RuntimeAdapter};

use crate::shim_fixture::ShimFixture;

const LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A control group with a memory limit. Dropped, it is removed; its processes have ended by then.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where none can be made. In CI it must be.
    fn make(name: &str) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
        let (parent, limit, swap) = match own {
            Some(path) => (
                Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')),
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
            ),
            None => (PathBuf::from("/sys/fs/cgroup"), "memory.max", "memory.swap.max"),
        };
        let group = Self(parent.join(format!("hanshu-test-{}-{name}", std::process::id())));
        let made = fs::create_dir(&group.0)
            .and_then(|()| fs::write(group.0.join(limit), LIMIT_BYTES.to_string()));
        // Not every kernel counts swap.
        let no_swap = if own.is_some() { LIMIT_BYTES } else { 0 };
        let _ = fs::write(group.0.join(swap), no_swap.to_string());
        let in_ci = std::env::var_os("CI").is_some();
        assert!(made.is_ok() || !in_ci, "CI tests memory limits: {made:?}");
        made.is_ok().then_some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// Takes far more memory than there is, all of it touched.
const EATER: &str = "/usr/bin/python3 -c 'x = bytearray(512 * 1024 * 1024)'";

#[test]
fn a_runtime_that_is_killed_for_want_of_memory_is_told_apart() {
    for (name, text) in [("direct", format!("exec {EATER}")), ("child", EATER.to_owned())] {
        let Some(group) = MemoryGroup::make(name) else { return };
        let script = format!("#!/bin/sh\n{text}\n");
        let mut fixture = ShimFixture::with_script(RuntimeAdapter::Direct, "run.sh", &script);
        fixture.start_in(&group.0);
        let exited = fixture.exited();
        assert_eq!(exited.oom_killed, Some(true), "{exited:?}");
        let expected = if name == "direct" { (None, Some(9)) } else { (Some(137), None) };
        assert_eq!((exited.code, exited.signal), expected);
        fixture.wait_end();
    }
}

#[test]
fn a_script_that_needs_too_much_memory_fails_with_that() {
    let Some(group) = MemoryGroup::make("shell") else { return };
    let text =
        format!("#!/bin/sh\nread -r word\n[ \"$word\" = 1 ] && {{ {EATER}; exit; }}\necho 5\n");
    let mut fixture = ShimFixture::with_script(RuntimeAdapter::Shell, "run.sh", &text);
    fixture.start_in(&group.0);
    assert_eq!(fixture.init().header.kind, FrameKind::Ready);
    let (failure, last) = fixture.failure("1\n");
    assert_eq!((failure.status_code, failure.error_code, last), (434, -1, false));
    assert_eq!(failure.error_message, "Task memory exceeded 128 MB");
    assert_eq!(fixture.result("2\n"), "5\n");
    fixture.hang_up();
    fixture.wait_end();
}

#[test]
fn a_runtime_that_ends_by_itself_has_not_run_out_of_memory() {
    let Some(group) = MemoryGroup::make("none") else { return };
    let mut fixture =
        ShimFixture::with_script(RuntimeAdapter::Direct, "run.sh", "#!/bin/sh\nkill -9 $$\n");
    fixture.start_in(&group.0);
    let exited = fixture.exited();
    assert_eq!((exited.signal, exited.oom_killed), (Some(9), Some(false)));
    fixture.wait_end();
}
