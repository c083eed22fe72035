"""The invoker's side of a real Unix socket, for the tests of bootstrap.py.

PYTHON names another interpreter to test.
"""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import textwrap
import time

BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py")
PYTHON = os.environ.get("PYTHON", "/usr/bin/python3")
ARGV = [PYTHON, "-I", "-S", "-B", "-u", "-X", "utf8", BOOTSTRAP]

INIT, READY, INIT_FAILED, INVOKE, RESULT, FAILED = 16, 17, 18, 32, 33, 34
LAST = 1
BODY_BYTES_MAX = 6_291_456
CALL_VARIABLES = {"HANSHU_ENDPOINT": "http://127.0.0.1:1", "HANSHU_TOKEN": "a0"}
REQUEST_ID = "01234567-89ab-cdef-0123-456789abcdef"
WAIT_S = 20


class Ended(Exception):
    """The runtime hung up."""


class Sandbox:
    """One running bootstrap, its code folder and its connection."""

    def __init__(self, files, handler="index.main_handler", **start):
        self.root = tempfile.mkdtemp()
        self.code = os.path.join(self.root, "code")
        for name, text in files.items():
            path = os.path.join(self.code, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
        path = os.path.join(self.root, "data.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(WAIT_S)
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.code}:{self.root}/opt"}
        env.update(TENCENTCLOUD_REGION="ap-test", HANSHU_SOCKET=path, **start.get("userEnv", {}))
        env.update(CALL_VARIABLES)
        self.out = os.open(os.path.join(self.root, "out"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.process = subprocess.Popen(
            ARGV, cwd=self.code, env=env, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out
        )
        self.line, _ = listener.accept()
        self.line.settimeout(WAIT_S)
        listener.close()
        os.unlink(path)
        body = {"adapter": "direct", "cwd": self.code, "handler": handler, "functionName": "f"}
        body.update(functionVersion="$LATEST", namespace="default", memoryMb=128, timeoutMs=3000)
        body.update(initTimeoutMs=65000, userEnv={}, port=0)
        body.update(start)
        self.send(INIT, json.dumps(body).encode())
        self.first = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.line.close()
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        shutil.rmtree(self.root)

    def send(self, kind, body, head=b"", event=0):
        self.line.sendall(struct.pack("<IBBHQ", len(body), kind, 0, len(head), event) + head + body)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.line.recv(count - len(data))
            if not piece:
                raise Ended
            data += piece
        return data

    def receive(self):
        """(kind, flags, event, body)"""
        length, kind, flags, head_length, event = struct.unpack("<IBBHQ", self.exactly(16))
        assert head_length == 0
        return kind, flags, event, self.exactly(length)

    def start_event(self, body, origin=0, event=77):
        head = struct.pack("<IB", 3000, origin) + REQUEST_ID.encode()
        self.send(INVOKE, body, head, event)

    def invoke_raw(self, body, origin=0):
        event = int.from_bytes(os.urandom(8), "little")
        self.start_event(body, origin, event)
        kind, flags, answered, text = self.receive()
        assert answered == event, (answered, event)
        return kind, flags, text

    def invoke(self, event, origin=0):
        kind, _, text = self.invoke_raw(json.dumps(event).encode(), origin)
        assert kind == RESULT, text
        return json.loads(text)

    def fail(self, event=None):
        kind, _, text = self.invoke_raw(json.dumps(event).encode())
        assert kind == FAILED, text
        return json.loads(text)

    def log(self):
        with open(os.path.join(self.root, "out"), "rb") as file:
            return file.read()


def sandbox(code, **start):
    return Sandbox({"index.py": code}, **start)


ECHO = """
    def main_handler(event, context):
        return event
"""
