"""Connects to whatever it is told; raw sockets; a port of its own."""
import ctypes
import os
import socket
import threading

PATIENCE_S = 1.0
CLONE_NEWUSER = 0x10000000


def reached(addresses):
    """Those that take a connection."""
    found = []

    def connect(address):
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), PATIENCE_S).close()
            found.append(address)
        except OSError:
            pass

    threads = [threading.Thread(target=connect, args=(each,)) for each in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def raw():
    """Sockets that see or forge what is not one's own."""
    kinds = {
        "icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "tcp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
        "any": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        "icmp6": (socket.AF_INET6, socket.SOCK_RAW, 58),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0x300),
        "packet-cooked": (socket.AF_PACKET, socket.SOCK_DGRAM, 0x300),
    }
    found = []
    for name, kind in kinds.items():
        try:
            socket.socket(*kind).close()
            found.append(name)
        except OSError:
            pass
    return found


def listen():
    """A port on every address; returns them."""
    server = socket.create_server(("0.0.0.0", 0))
    threading.Thread(target=lambda: [server.accept() for _ in range(1000)], daemon=True).start()
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
    except OSError:
        own = "127.0.0.1"
    return f"{own}:{server.getsockname()[1]}"


def user_namespace():
    """Whether a namespace can be made in which one is root, and all of the kernel in reach."""
    if os.fork() == 0:
        os._exit(ctypes.CDLL(None).unshare(CLONE_NEWUSER) & 0xFF)
    return os.waitstatus_to_exitcode(os.wait()[1]) == 0


def main_handler(event, context):
    do = event["do"]
    if do == "reach":
        return reached(event["to"])
    return {"raw": raw, "listen": listen, "user-namespace": user_namespace}[do]()
