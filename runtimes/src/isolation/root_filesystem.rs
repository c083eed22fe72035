//! The root file system of a process sandbox: the host's programs and libraries, read-only, a few
//! devices, a few files of `/etc`, and nothing else of the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::{IsolatedNetwork, IsolatedTmp, IsolationError, IsolationPlan, StepContext, mounts};

/// Programs and libraries. Symbolic links of the host are copied as links.
const PROGRAMS: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libexec"];
/// What programs need of `/etc` and is not secret; what the host lacks is left out.
const ETC: [&str; 10] = [
    "ld.so.cache",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "ca-certificates",
    "localtime",
    "mime.types",
    "services",
    "protocols",
];
/// What programs need in addition when they use the host's network.
const ETC_NETWORK: [&str; 3] = ["resolv.conf", "hosts", "gai.conf"];
/// Empty folders that functions find in SCF (scf.md §6).
const EMPTY: [&str; 2] = ["home/qcloud", "opt"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];
/// The root holds folders, links and five small files.
const ROOT_OPTIONS: &str = "mode=755,size=1m,nr_inodes=1024";
const LOCALHOST: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Builds the root file system, changes this process's root to it, and remounts everything but
/// `/tmp` read-only.
pub(super) fn enter(plan: &IsolationPlan) -> Result<(), IsolationError> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).in_step("make mounts private")?;
    let root = &plan.root;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::virtual_fs("tmpfs", root, quiet, Some(ROOT_OPTIONS))?;
    for path in PROGRAMS {
        expose(Path::new(path), root)?;
    }
    for path in EMPTY {
        fs::create_dir_all(root.join(path)).in_step(format_args!("make /{path}"))?;
    }
    devices(root)?;
    etc(plan)?;
    mounts::virtual_fs("proc", &root.join("proc"), quiet | MsFlags::MS_NOEXEC, None)?;
    for bind in &plan.binds {
        mounts::bind(&bind.source, &inside(root, &bind.target))?;
    }
    match &plan.tmp {
        IsolatedTmp::Folder(folder) => mounts::bind(folder, &root.join("tmp"))?,
        IsolatedTmp::Memory(bytes) => {
            let options = format!("mode=1777,size={bytes}");
            mounts::virtual_fs("tmpfs", &root.join("tmp"), quiet, Some(&options))?;
        }
    }
    pivot(root)?;
    restrict_mounts()
}

/// Changes the root. This process and its children can no longer reach the host's.
fn pivot(root: &Path) -> Result<(), IsolationError> {
    chdir(root).in_step("enter the root")?;
    pivot_root(".", ".").in_step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).in_step("unmount the host's root")?;
    chdir("/").in_step("enter the root")
}

fn restrict_mounts() -> Result<(), IsolationError> {
    for mounted in mounts::all()? {
        let place = mounted.at.to_string_lossy().into_owned();
        let more = if place == "/proc" || place.starts_with("/dev/") {
            continue;
        } else if place == "/tmp" {
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV
        } else {
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV
        };
        mounts::remount_with(&mounted, more)?;
    }
    Ok(())
}

/// Makes a path of the host visible at the same place: a symbolic link as a link, anything else as
/// a bind mount.
fn expose(path: &Path, root: &Path) -> Result<(), IsolationError> {
    let target = inside(root, path);
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).in_step(format_args!("make {}", parent.display()))?;
            }
            fs::read_link(path)
                .and_then(|to| symlink(to, &target))
                .in_step(format_args!("link {}", path.display()))
        }
        Ok(_) => mounts::bind(path, &target),
        // Not every host has every path.
        Err(_) => Ok(()),
    }
}

fn inside(root: &Path, path: &Path) -> std::path::PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn devices(root: &Path) -> Result<(), IsolationError> {
    for device in DEVICES {
        mounts::bind(&Path::new("/dev").join(device), &root.join("dev").join(device))?;
    }
    for (to, link) in LINKS {
        symlink(to, root.join(link)).in_step(format_args!("link {link}"))?;
    }
    Ok(())
}

fn etc(plan: &IsolationPlan) -> Result<(), IsolationError> {
    let etc = plan.root.join("etc");
    fs::create_dir_all(&etc).in_step("make /etc")?;
    for name in ETC {
        expose(&Path::new("/etc").join(name), &plan.root)?;
    }
    let (uid, gid) = (plan.uid, plan.gid);
    let write = |name: &str, text: &str| {
        fs::write(etc.join(name), text).in_step(format_args!("write /etc/{name}"))
    };
    write("passwd", &format!("root:x:0:0::/:/bin/false\nfunction:x:{uid}:{gid}::/tmp:/bin/sh\n"))?;
    write("group", &format!("root:x:0:\nfunction:x:{gid}:\n"))?;
    write("nsswitch.conf", NSSWITCH)?;
    match plan.network {
        // Copied, since the host's files are often links to places that the sandbox does not see.
        IsolatedNetwork::Host => ETC_NETWORK.iter().try_for_each(|name| {
            fs::read_to_string(Path::new("/etc").join(name))
                .map_or(Ok(()), |text| write(name, &text))
        }),
        IsolatedNetwork::Loopback => write("hosts", LOCALHOST),
    }
}
