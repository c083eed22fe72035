"""Takes the data connection from the bootstrap while this file is loaded, and answers in its place.

Nothing here knows the bootstrap: the connection is the one Unix socket of this process. What a frame
is, is in runtimes/PROTOCOL.md.
"""
import array
import json
import os
import select
import socket
import struct
import time

HEADER = struct.Struct("<IBBHQ")  # body_len, kind, flags, head_len, event
READY, INVOKE, RESULT, FAILED = 17, 32, 33, 34
LIMIT = 6_291_456


def connection():
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
            return found
    raise RuntimeError("there is no connection")


line = connection()
earlier = 0


def frame(kind, event, body=b"", **more):
    length, head = more.get("length", len(body)), more.get("head", 0)
    return HEADER.pack(length, kind, 0, head, event) + body


def slowly(data, pause):
    for at in range(len(data)):
        line.sendall(data[at : at + 1])
        time.sleep(pause)


def read(count):
    data = bytearray()
    while len(data) < count:
        part = line.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)


def flood(event):
    """Answers as fast as they can be written, the first of them right."""
    many = frame(RESULT, event, b"1") * 1000
    while True:
        line.sendall(many)


def descriptors(event):
    """A right answer, with 250 open files attached."""
    files = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(250)])
    line.sendmsg([frame(RESULT, event, b"1")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    for each in files:
        os.close(each)


def failure(event, **more):
    told = {"statusCode": 430, "errorCode": 1, "errorMessage": "boom"} | more
    line.sendall(frame(FAILED, event, json.dumps(told).encode()))


def twice(event, wait):
    """Answers with the name of this sandbox, waits, and answers once more."""
    space = os.readlink("/proc/self/ns/pid")
    line.sendall(frame(RESULT, event, json.dumps(space).encode()))
    wait()
    line.sendall(frame(RESULT, event, b"2"))


MENU = {
    "honest": lambda event, _: line.sendall(frame(RESULT, event, b'"honest"')),
    "endless-length": lambda event, _: line.sendall(frame(RESULT, event, length=0xFFFFFFFF)),
    "one-byte-over": lambda event, _: line.sendall(frame(RESULT, event, b"1" * (LIMIT + 1))),
    "a-head": lambda event, _: line.sendall(frame(RESULT, event, b"123456789", length=0, head=9)),
    "unknown-kind": lambda event, _: line.sendall(frame(99, event)),
    "kind-kill": lambda event, _: line.sendall(frame(4, event)),
    "kind-invoke": lambda event, _: line.sendall(frame(INVOKE, event, b"1" * 41, length=0, head=41)),
    "ready-again": lambda event, _: line.sendall(frame(READY, event)),
    "noise": lambda event, _: line.sendall(os.urandom(100_000)),
    "hang-up": lambda event, _: line.shutdown(socket.SHUT_RDWR),
    "half-a-frame": lambda event, _: (line.sendall(frame(RESULT, event, length=9)), os._exit(0)),
    "foreign": lambda event, _: line.sendall(frame(RESULT, event ^ 1, b"1")),
    "earlier": lambda event, _: line.sendall(frame(RESULT, earlier, b"1")),
    "twice": lambda event, _: line.sendall(frame(RESULT, event, b"1") * 2),
    "twice-during": lambda event, _: twice(event, lambda: select.select([line], [], [])),
    "twice-alone": lambda event, _: twice(event, lambda: time.sleep(0.5)),
    "flood": lambda event, _: flood(event),
    "write-slowly": lambda event, _: slowly(frame(RESULT, event, b"1" * 1000), 0.1),
    "read-no-more": lambda event, _: (line.sendall(frame(RESULT, event, b"1")), time.sleep(600)),
    "not-json": lambda event, _: line.sendall(frame(RESULT, event, b"\0\xff{")),
    "descriptors": lambda event, _: descriptors(event),
    "failure-unreadable": lambda event, _: line.sendall(frame(FAILED, event, b"no json")),
    "failure-huge": lambda event, _: failure(event, errorMessage="x" * (LIMIT - 200)),
    "failure-code": lambda event, body: failure(event, statusCode=body["code"]),
}

if os.environ.get("LOAD") == "slowly":
    slowly(frame(READY, 0), 60)
line.sendall(frame(READY, 0))
while True:
    length, kind, _, head, number = HEADER.unpack(read(HEADER.size))
    read(head)
    wanted = json.loads(read(length))
    MENU[wanted["do"]](number, wanted)
    earlier = number
