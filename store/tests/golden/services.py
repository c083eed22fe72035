"""What `write` runs its program on, and reads from: a Redis and a PostgreSQL of its own."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

POSTGRES = pathlib.Path(os.environ.get("POSTGRES_BIN", "/usr/lib/postgresql/15/bin"))
# The port and the password are kept in triggers: the same each time.
STREAM_PORT, STREAM_PASSWORD = 16390, "golden-password"
WAIT_S = 120


class Failed(Exception):
    """Something did not happen in time, or not as it must."""


def until(what, probe, seconds=WAIT_S):
    """Waits until `probe` gives something true, and gives that."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = probe()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(0.1)
    raise Failed(f"{what}: not within {seconds} s; last: {last}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def process(*words, **more):
    """A program that is killed at the end."""
    running = subprocess.Popen(words, stdin=subprocess.DEVNULL, **more)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def redis(folder):
    """A Redis with a password, since a trigger's URL may hold one."""
    folder.mkdir()
    words = ["redis-server", "--port", str(STREAM_PORT), "--bind", "127.0.0.1", "--appendonly", "yes",
             "--save", "", "--dir", str(folder), "--requirepass", STREAM_PASSWORD]
    with process(*words, stdout=subprocess.DEVNULL):
        yield until("redis-server", lambda: Redis(STREAM_PORT))


class Redis:
    """A client that knows as much of RESP as is needed here."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.reader = self.socket.makefile("rb")
        self.ask("AUTH", STREAM_PASSWORD)

    def ask(self, *words):
        parts = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        return self.answer()

    def answer(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.reader.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if rest == b"-1" else [self.answer() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        raise Failed(f"redis-server: {line}")


@contextlib.contextmanager
def postgres(folder):
    """A PostgreSQL of its own; gives its URL."""
    port = free_port()
    subprocess.run(["install", "-d", "-o", "postgres", folder], check=True)
    user = ["runuser", "-u", "postgres", "--"]
    subprocess.run([*user, POSTGRES / "initdb", "-D", folder / "data", "-A", "trust", "--no-sync", "-E", "UTF8",
                    "--locale", "C"], check=True, stdout=subprocess.DEVNULL)
    server = [*user, POSTGRES / "postgres", "-D", folder / "data", "-p", str(port), "-k", "", "-F"]
    running = subprocess.Popen(server, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"postgres://postgres@127.0.0.1:{port}/postgres"
    try:
        ask = [POSTGRES / "psql", "-qAtc", "SELECT 1", url]
        until("postgres", lambda: subprocess.run(ask, capture_output=True).returncode == 0)
        yield url
    finally:
        # SIGINT is its fast shutdown; runuser hands it on.
        running.send_signal(signal.SIGTERM)
        pid = int((folder / "data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGINT)
        running.wait()


def dump_redis(client, path):
    """One line of JSON for each key. Values are UTF-8, numbers in them text."""
    with open(path, "w", encoding="utf-8") as out:
        for key in sorted(client.ask("KEYS", "*")):
            kind, ttl = client.ask("TYPE", key), client.ask("PTTL", key)
            read = {"hash": ("HGETALL", key), "zset": ("ZRANGE", key, 0, -1, "WITHSCORES"), "string": ("GET", key)}
            value = dump_stream(client, key) if kind == "stream" else client.ask(*read[kind])
            if kind in ("hash", "zset"):
                value = dict(sorted(zip(value[::2], value[1::2], strict=True)))
            line = {"key": key, "type": kind, "ttlMs": None if ttl < 0 else ttl, "value": value}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def dump_stream(client, key):
    pairs = lambda flat: dict(zip(flat[::2], flat[1::2], strict=True))
    groups = []
    for group in map(pairs, client.ask("XINFO", "GROUPS", key)):
        pending = client.ask("XPENDING", key, group["name"], "-", "+", 1000)
        groups.append({"name": group["name"], "lastDelivered": group["last-delivered-id"], "pending": [
            {"id": each[0], "consumer": each[1], "deliveries": each[3]} for each in pending]})
    entries = [{"id": each[0], "fields": each[1]} for each in client.ask("XRANGE", key, "-", "+")]
    return {"entries": entries, "groups": groups}


def dump_postgres(url, path):
    """Plain SQL without schema, owner and settings: it can be read into any schema."""
    words = [POSTGRES / "pg_dump", "--no-owner", "--no-privileges", "--inserts", "--no-comments",
             "--schema=public", url]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    kept = [line for line in text.splitlines()
            if not re.match(r"--|SET |SELECT pg_catalog\.set_config|\\|CREATE SCHEMA", line)]
    text = re.sub(r"(?m)^((?:CREATE TABLE|INSERT INTO|ALTER TABLE ONLY|CREATE (?:UNIQUE )?INDEX \w+ ON) )public\.", r"\1",
                  "\n".join(kept))
    path.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")
