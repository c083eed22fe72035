"""Tries what a sandbox must not allow; returns what was allowed, and tells what it tried."""
import ctypes
import os
import socket
import stat

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
tried, allowed = [], []
# Many files and no sockets.
ASIDE = ("/proc", "/sys", "/usr")


def attempt(what, action):
    tried.append(what)
    try:
        found = action()
    except (OSError, ValueError):  # `setrlimit` turns its EPERM into the latter
        return
    allowed.append(f"{what}: {found!r}"[:200])


def system(name, *arguments):
    """A function of the C library, whose -1 is a refusal."""
    given = [ctypes.c_void_p(each) if isinstance(each, int) else each for each in arguments]
    if getattr(libc, name)(*given) == -1:
        raise OSError(ctypes.get_errno(), name)
    return "done"


def read(path):
    with open(path, "rb") as file:
        return file.read(64)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return "written"


def peek(pid):
    """process_vm_readv(2) from the first page that is mapped there."""
    buffer = ctypes.create_string_buffer(8)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_void_p * 2)(0x400000, 8)
    return system("process_vm_readv", pid, here, 1, there, 1, 0)


def processes():
    """Shows of the sandbox: process 1 and this one."""
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1, os.getpid()}
    if others:
        allowed.append(f"processes {sorted(others)}")
    for pid in (1, os.getppid()):
        if pid == 0:
            continue
        attempt(f"ptrace attach {pid}", lambda: system("ptrace", PTRACE_ATTACH, pid, 0, 0))
        attempt(f"ptrace seize {pid}", lambda: system("ptrace", PTRACE_SEIZE, pid, 0, 0))
        attempt(f"process_vm_readv {pid}", lambda: peek(pid))
        for name in ("mem", "environ", "maps", "auxv"):
            attempt(f"/proc/{pid}/{name}", lambda: read(f"/proc/{pid}/{name}"))
        for name in ("fd", "map_files", "root"):
            attempt(f"/proc/{pid}/{name}", lambda: os.listdir(f"/proc/{pid}/{name}"))
        attempt(f"/proc/{pid}/cwd", lambda: os.readlink(f"/proc/{pid}/cwd"))
        attempt(f"/proc/{pid}/exe", lambda: os.readlink(f"/proc/{pid}/exe"))


def host():
    """The kernel's knobs, the host's devices, its memory, its logs."""
    for path in ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sysrq-trigger", "sys/vm/drop_caches"):
        attempt(f"write /proc/{path}", lambda: write(f"/proc/{path}", "|/tmp/x"))
    for path in ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/fuse"):
        attempt(f"read {path}", lambda: read(path))
    for path in ("/etc/shadow", "/root", "/proc/1/root/etc/shadow"):
        attempt(f"open {path}", lambda: os.listdir(path) if os.path.isdir(path) else read(path))
    for folder, _, names in os.walk("/sys"):
        for name in names:
            if name in ("release_agent", "cgroup.procs", "memory.limit_in_bytes", "memory.max", "uevent_helper"):
                attempt(f"write {folder}/{name}", lambda: write(f"{folder}/{name}", "0"))
    attempt("mount", lambda: system("mount", b"none", b"/tmp", b"tmpfs", 0, 0))
    attempt("remount", lambda: system("mount", b"none", b"/", b"none", 4096 | 32, 0))
    attempt("chroot", lambda: os.chroot("/tmp"))
    attempt("mknod", lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)))
    attempt("setuid", lambda: os.setuid(0))
    attempt("sethostname", lambda: socket.sethostname("hostile"))
    attempt("nice", lambda: os.nice(-5))
    attempt("unlimited", lambda: __import__("resource").setrlimit(7, (4096, 4096)))
    attempt("kill 1", lambda: alive(1))


def alive(pid):
    """A signal that the kernel takes and drops is a refusal, too."""
    os.kill(pid, 9)
    os.kill(pid, 0)
    raise OSError("it lives")


def setuid_programs():
    """A program that would make its caller somebody else: none must do so."""
    for folder in ("/bin", "/usr/bin", "/sbin", "/usr/sbin"):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.stat(path).st_mode & stat.S_ISUID:
                tried.append(path)
    status = open("/proc/self/status").read()
    facts = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    if facts["NoNewPrivs"].strip() != "1":
        allowed.append("new privileges")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(facts[name], 16):
            allowed.append(f"{name} {facts[name]}")


# The sandbox's own: its other end answers what HANSHU_ENDPOINT answers, token or not.
CALLS_SOCKET = "/run/hanshu/calls.sock"


def ask(method, path):
    """The status line of the answer to a request on the sandbox's own socket."""
    own = socket.socket(socket.AF_UNIX)
    own.connect(CALLS_SOCKET)
    own.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    answer = b""
    while b"\r\n" not in answer:
        part = own.recv(65536)
        if not part:
            break
        answer += part
    return answer.split(b"\r\n")[0].decode()


def own_socket():
    """The socket for calls of functions permits nothing but calls within the namespace."""
    for method, path in (
        ("GET", "/v1/functions"),
        ("DELETE", "/v1/functions/walls"),
        ("GET", "/v1/functions/walls/logs"),
        ("GET", "/v1/invocations"),
        ("GET", "/metrics"),
        ("POST", "/v1/functions/walls/invocations?namespace=other"),
    ):
        tried.append(path)
        status = ask(method, path)
        if " 403 " not in status:
            allowed.append(f"{method} {path}: {status}")


def sockets():
    """Sockets of others: the engine's by its usual names, and whatever lies anywhere."""
    names = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"]
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ASIDE]
        for name in files:
            path = os.path.join(folder, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode) and path != CALLS_SOCKET:
                    names.append(path)
            except OSError:
                pass
    for path in names:
        attempt(f"connect {path}", lambda: socket.socket(socket.AF_UNIX).connect(path))
    own_socket()


MENU = {"processes": processes, "host": host, "setuid": setuid_programs, "sockets": sockets}


def main_handler(event, context):
    tried.clear()
    allowed.clear()
    MENU[event["do"]]()
    if event.get("raise"):
        raise PermissionError(f"{len(tried)} attempts, {len(allowed)} allowed")
    return {"tried": len(tried), "allowed": allowed}
