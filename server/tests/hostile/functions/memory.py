"""Fills memory: its own, what it shares with children, or that of a pipe full of children."""
import mmap
import os

MB = 1024 * 1024


def main_handler(event, context):
    held = []
    for _ in range(event["mb"]):
        if event["kind"] == "private":
            held.append(bytearray(os.urandom(1)) * MB)
        else:
            shared = mmap.mmap(-1, MB)
            shared.write(b"x" * MB)
            held.append(shared)
    return len(held)
