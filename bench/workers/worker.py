"""The ceiling's Python worker: one frame in, the event decoded and encoded again, one frame out.

A frame is `length: u32, id: u64` in little endian, then the body. Nothing else is done for an event.
"""

import json
import socket
import struct
import sys

line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
line.sendall(struct.pack("<IQ", 0, 0))  # Here I am: what a cold start is measured to.
head = struct.Struct("<IQ")
buffer = bytearray(65536)
view = memoryview(buffer)
loads = json.loads
dumps = json.JSONEncoder(ensure_ascii=False).encode


def handler(event):
    return event


while True:
    have = line.recv_into(view)
    if not have:
        break
    while have < 12:
        have += line.recv_into(view[have:])
    length, event_id = head.unpack_from(buffer)
    if len(buffer) < 12 + length:
        view.release()
        buffer.extend(bytes(12 + length - len(buffer)))
        view = memoryview(buffer)
    while have < 12 + length:
        have += line.recv_into(view[have:])
    answer = dumps(handler(loads(str(view[12 : 12 + length], "utf-8")))).encode()
    if len(answer) < 65536:
        line.sendall(head.pack(len(answer), event_id) + answer)
    else:
        line.sendall(head.pack(len(answer), event_id))
        line.sendall(answer)
