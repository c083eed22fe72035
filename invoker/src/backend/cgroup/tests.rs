//! Hierarchies of both versions, parsed and used.

use std::path::PathBuf;

use super::sandbox_cgroup::folders_of;
use super::*;

const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

#[test]
fn a_hybrid_host_is_one_of_version_1() {
    let Some(CgroupHierarchy::V1(trees)) = CgroupHierarchy::parse(HYBRID) else {
        panic!("not version 1")
    };
    let names: Vec<_> = trees.keys().copied().collect();
    assert_eq!(names, ["cpu", "freezer", "memory"]);
    assert_eq!(trees["cpu"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
}

#[test]
fn a_host_with_one_tree_is_one_of_version_2() {
    let found = CgroupHierarchy::parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
    assert_eq!(found, Some(CgroupHierarchy::V2("/sys/fs/cgroup".into())));
    assert_eq!(CgroupHierarchy::parse("proc /proc proc rw 0 0\n"), None);
}

#[test]
fn the_group_of_a_process_is_found_in_either_version() {
    let v1 = CgroupHierarchy::parse(HYBRID).unwrap();
    let text = "4:memory:/docker/abc\n3:cpuset:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n";
    assert_eq!(
        folders_of(&v1, text, "abc"),
        [
            ("memory", PathBuf::from("/sys/fs/cgroup/memory/docker/abc")),
            ("cpu", PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/docker/abc")),
        ]
    );
    let v2 = CgroupHierarchy::V2("/sys/fs/cgroup".into());
    let text = "0::/system.slice/docker-abc.scope\n";
    let found = folders_of(&v2, text, "abc");
    let expected = PathBuf::from("/sys/fs/cgroup/system.slice/docker-abc.scope");
    assert_eq!(found, [("unified", expected)]);
}

#[test]
fn a_process_of_somebody_else_is_not_taken_for_ours() {
    let v2 = CgroupHierarchy::V2("/sys/fs/cgroup".into());
    assert!(folders_of(&v2, "0::/user.slice\n", "abc").is_empty());
}
