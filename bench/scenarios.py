#!/usr/bin/env python3
"""Single scenarios against a server: see README.md in this folder."""

import argparse
import base64
import collections
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE_S = 600
FUNCTION = """
import os, time
def main_handler(event, context):
    time.sleep(event.get("sleep", 0))
    if "Time" in event:
        print("tick", event["Time"])
    return os.getpid()
"""


class Server:
    """A server process with a data folder of its own."""

    def __init__(self, program, flags, environment=None, settings=""):
        self.program, self.flags = program, flags
        self.environment = {**os.environ, **(environment or {})}
        self.folder = tempfile.TemporaryDirectory(prefix="hanshu-bench-")
        self.data = pathlib.Path(self.folder.name) / "data"
        self.settings = settings
        self.start()

    def start(self):
        self.data.mkdir(exist_ok=True)
        credentials = self.data / "credentials.env"
        credentials.unlink(missing_ok=True)
        log = open(pathlib.Path(self.folder.name) / "log", "ab")
        listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data", str(self.data)]
        self.process = subprocess.Popen(
            [self.program, "serve", *listen, *self.flags], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log)
        until = time.monotonic() + 60
        gateway = not any("triggers" in flag for flag in self.flags)
        while not (credentials.exists() if gateway else "is ready" in self.log()):
            if self.process.poll() is not None or until < time.monotonic():
                sys.exit("the server does not come up:\n" + self.log())
            time.sleep(0.01)
        if not gateway:
            return
        pairs = dict(line.split("=", 1) for line in credentials.read_text().splitlines())
        self.environment.update(pairs)
        self.address = pairs["HANSHU_ENDPOINT"].removeprefix("http://")
        token = base64.b64encode(f"{pairs['HANSHU_SECRET_ID']}:{pairs['HANSHU_SECRET_KEY']}".encode()).decode()
        self.headers = {"authorization": "Basic " + token}

    def log(self):
        return (pathlib.Path(self.folder.name) / "log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def run(self, *args):
        done = subprocess.run([self.program, *args], env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{args}: {done.stderr}{self.log()}")
        return done.stdout

    def deploy(self, name, extra=""):
        folder = pathlib.Path(self.folder.name) / name
        folder.mkdir(exist_ok=True)
        (folder / "index.py").write_text(FUNCTION)
        (folder / "hanshu.toml").write_text(
            f'[functions.{name}]\nruntime = "python"\nhandler = "index.main_handler"\n{extra}')
        self.run("deploy", str(folder))

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.address, timeout=timeout)

    def call(self, connection, name, event, more=None):
        body = json.dumps(event)
        connection.request("POST", f"/v1/functions/{name}/invocations", body, {**self.headers, **(more or {})})
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    def get(self, path):
        connection = self.connect()
        connection.request("GET", path, headers=self.headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


def in_threads(count, work):
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def sync(server, calls=1000, connections=16):
    server.deploy("measured")
    times, errors, sandboxes, lock = [], collections.Counter(), set(), threading.Lock()

    def work(index):
        connection = server.connect()
        for _ in range(calls // connections + (index < calls % connections)):
            begun = time.perf_counter()
            status, _, body = server.call(connection, "measured", {})
            took = time.perf_counter() - begun
            with lock:
                times.append(took)
                if status == 200:
                    sandboxes.add(body)
                else:
                    errors[status] += 1

    begun = time.perf_counter()
    in_threads(connections, work)
    took = time.perf_counter() - begun
    return {"calls": len(times), "errors": dict(errors), "sandboxes": len(sandboxes),
            "p50_ms": round(statistics.median(times) * 1e3, 3), "p99_ms": round(percentile(times, 0.99) * 1e3, 3),
            "calls_per_s": round(len(times) / took)}


def hangup(server, calls=1000, connections=16):
    server.deploy("measured", "concurrency = 16\ntimeout_s = 10\n")

    def work(index):
        for _ in range(calls // connections):
            connection = server.connect()
            body = json.dumps({"sleep": 0.02})
            connection.request("POST", "/v1/functions/measured/invocations", body, server.headers)
            time.sleep(0.01)
            connection.close()

    in_threads(connections, work)
    time.sleep(1)
    connection = server.connect()
    after = [server.call(connection, "measured", {}) for _ in range(100)]
    metrics = server.connect()
    metrics.request("GET", "/metrics", headers=server.headers)
    text = metrics.getresponse().read().decode()
    states = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith("hanshu_sandboxes{")}
    return {"hung_up": calls // connections * connections, "answered_after": sum(a[0] == 200 for a in after),
            "sandboxes_used_after": len({a[2] for a in after}), "sandboxes": states}


def durability(server, events=10_000, kills=5):
    server.deploy("counted", "concurrency = 16\ntimeout_s = 10\nasync = { max_attempts = 10, retry_delay_s = 0 }\n")
    accepted, lock, in_flight = [], threading.Lock(), []

    def work(index):
        connection = server.connect()
        for n in range(index, events, 16):
            until = time.monotonic() + PATIENCE_S
            while True:
                try:
                    prefer = {"prefer": "respond-async"}
                    status, headers, _ = server.call(connection, "counted", {"n": n, "sleep": 0.005}, prefer)
                    if status == 202:
                        with lock:
                            accepted.append((n, headers["x-request-id"]))
                        break
                except (OSError, http.client.HTTPException):
                    connection.close()
                    time.sleep(0.05)
                    connection = server.connect()
                if until < time.monotonic():
                    sys.exit("events are not accepted:\n" + server.log())

    accepting = threading.Thread(target=in_threads, args=(16, work))
    accepting.start()
    for _ in range(kills):
        time.sleep(4)
        in_flight.append(sum(q["running"] for q in server.get("/v1/queues")["queues"]))
        server.kill()
        server.start()
    accepting.join()
    begun, until = time.monotonic(), time.monotonic() + PATIENCE_S
    while any(q["waiting"] + q["running"] for q in server.get("/v1/queues")["queues"]):
        if until < time.monotonic():
            sys.exit("events do not end")
        time.sleep(0.5)
    states, again = collections.Counter(), 0
    connection = server.connect()
    for _, request_id in accepted:
        connection.request("GET", f"/v1/invocations/{request_id}", headers=server.headers)
        view = json.loads(connection.getresponse().read())
        states[view["state"]] += 1
        again += 1 < len(view["attempts"])
    return {"accepted": len(accepted), "states": dict(states), "attempted_again": again,
            "in_flight_at_kills": in_flight, "drain_after_last_s": round(time.monotonic() - begun, 1)}


def timers(program, database, seconds=120):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = {"HANSHU_CLUSTER__MASTER_KEY": "ab" * 32, "HANSHU_CLUSTER__TOKEN": "t" * 40,
               "HANSHU_CLUSTER__CONTROLLER": f"http://127.0.0.1:{port}"}
    flags = ["--sandbox", "process", "--database", database, "--roles"]
    one = {**cluster, "HANSHU_CLUSTER__LISTEN": f"127.0.0.1:{port}"}
    servers = [Server(program, [*flags, "gateway,controller,invoker"], one)]
    servers += [Server(program, [*flags, "triggers"], cluster) for _ in range(2)]
    trigger = '[[functions.clock.triggers]]\ntype = "timer"\ncron = "* * * * * * *"\n'
    servers[0].deploy("clock", trigger)
    time.sleep(seconds + 5)
    servers[0].run("trigger", "disable", "clock")
    until = time.monotonic() + 60
    while any(q["waiting"] + q["running"] for q in servers[0].get("/v1/queues")["queues"]) and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)
    page = servers[0].get("/v1/functions/clock/logs?since=1h&limit=10000")
    ran = [line["text"].split()[1] for line in page["lines"] if line["text"].startswith("tick ")]
    for server in servers:
        server.stop()
    at = sorted(time.mktime(time.strptime(each, "%Y-%m-%dT%H:%M:%SZ")) for each in ran)
    missing = [int(before - at[0]) for before, after in zip(at, at[1:]) if 1 < after - before]
    counted = sum(each < at[0] + seconds for each in at)
    return {"seconds": seconds, "ticks": counted, "each_once": len(set(ran)) == len(ran), "gaps_after_s": missing}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["sync", "hangup", "durability", "timers"])
    parser.add_argument("--hanshu", default="target/quick/hanshu", help="the program")
    parser.add_argument("--sandbox", default="docker", choices=["docker", "process"])
    parser.add_argument("--queue", help="redis://…, else the embedded one")
    parser.add_argument("--database", help="postgres://… (timers)")
    args = parser.parse_args()
    program = str(pathlib.Path(args.hanshu).resolve())
    if args.what == "timers":
        result = timers(program, args.database)
    else:
        flags = ["--sandbox", args.sandbox] + (["--queue", args.queue] if args.queue else [])
        server = Server(program, flags)
        try:
            result = {"sync": sync, "hangup": hangup, "durability": durability}[args.what](server)
        finally:
            server.stop()
    print(json.dumps({"what": args.what, "sandbox": args.sandbox, "queue": bool(args.queue), **result}))


if __name__ == "__main__":
    main()
