"""The menu of ../README.md for Python."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

count = 0
print("loaded")


def double_forked(seconds):
    """A grandchild that has left the session, to be killed with the sandbox; its pid."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            time.sleep(seconds)
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


def counter(event):
    global count
    count += 1
    return count


def crash(event):
    ctypes.string_at(1)


def fork_bomb(event):
    made = 0
    try:
        while made < 5000:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            made += 1
    except OSError:
        return {"limited": True}
    return {"limited": False}


def fill_tmp(event):
    written = 0
    try:
        with open("/tmp/full", "wb", buffering=0) as file:
            while written < 1024 << 20:
                written += file.write(b"x" * (1 << 20))
    except OSError:
        return {"limited": True, "mib": written >> 20}
    finally:
        os.unlink("/tmp/full")
    return {"limited": False}


def open_files(event):
    files = []
    try:
        for _ in range(event["n"]):
            files.append(open("/dev/null"))
    except OSError:
        return {"limited": True}
    return {"limited": False}


def print_much(event):
    print("first line")
    for _ in range(event["mb"]):
        sys.stdout.write(("y" * 99 + "\n") * 10486)
    print("last line")


def both_streams(event):
    for n in range(event["n"]):
        print(f"out {n}")
        print(f"err {n}", file=sys.stderr)


def late(event):
    threading.Timer(event["ms"] / 1000, lambda: print("late line")).start()


def connect(event):
    reached = []
    for address in event["to"]:
        host, port = address.split(":")
        try:
            socket.create_connection((host, int(port)), timeout=0.5).close()
            reached.append(address)
        except OSError:
            pass
    return {"reached": reached}


def sees_server():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"--data" in file.read().split(b"\0"):
                    return True
        except OSError:
            pass
    return False


def isolation(event):
    def readable(path):
        try:
            with open(path, "rb") as file:
                return bool(file.read(1)) or True
        except OSError:
            return False

    def writable(path):
        try:
            with open(path, "w"):
                return True
        except OSError:
            return False

    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return {
        "uid": os.getuid(),
        "caps": status["CapEff"].strip().strip("0") or "none",
        "noNewPrivs": status["NoNewPrivs"].strip(),
        "dockerSocket": os.access("/var/run/docker.sock", os.R_OK | os.W_OK),
        "writesCode": writable("/var/user/new"),
        "writesRoot": writable("/new") or writable("/etc/new") or writable("/usr/new"),
        "writesRun": writable("/run/hanshu/new"),
        "readsShadow": readable("/etc/shadow"),
        "readsInit": readable("/proc/1/environ"),
        "seesServer": sees_server(),
        "reads": [path for path in event.get("paths", []) if os.access(path, os.R_OK)],
        "sockets": [n for n in os.listdir("/run/hanshu") if n.endswith(".sock")],
        "secrets": sorted(k for k in os.environ if k.startswith("HANSHU_")),
    }


MENU = {
    "echo": lambda e: e.get("value"),
    "raise": lambda e: [][e["at"]],
    "exit": lambda e: sys.exit(3),
    "kill": lambda e: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": crash,
    "spin": lambda e: any(iter(int, 1)),
    "sleep": lambda e: time.sleep(e["s"]),
    "children": lambda e: (print("child", double_forked(600)), time.sleep(e["s"])),
    "allocate": lambda e: len([bytearray(b"x" * (1 << 20)) for _ in range(e["mb"])]),
    "forkBomb": fork_bomb,
    "fillTmp": fill_tmp,
    "openFiles": open_files,
    "connect": connect,
    "print": lambda e: print(e["text"]),
    "printMuch": print_much,
    "printInvalid": lambda e: (os.write(1, b"be\xff\xfefore\n"), None)[1],
    "printLong": lambda e: print("z" * e["n"]),
    "bothStreams": both_streams,
    "late": late,
    "unserialisable": lambda e: {1, 2},
    "fill": lambda e: "x" * (e["n"] - 2),
    "env": lambda e: os.environ.get(e["name"]),
    "cwd": lambda e: os.getcwd(),
    "read": lambda e: open(e["path"]).read(),
    "write": lambda e: open(e["path"], "w").write(e["text"]) and None,
    "isolation": isolation,
    "count": counter,
    "run": lambda e: subprocess.run(e["argv"], capture_output=True, text=True).stdout,
}


def main_handler(event, context):
    if isinstance(event, dict) and event.get("do") == "context":
        return context
    if not isinstance(event, dict) or event.get("do") not in MENU:
        return event
    return MENU[event["do"]](event)
