"""Prints without end, or returns too much."""
import os
import time

BLOCK = b"012345678\n" * 6000
LIMIT = 6_291_456


def main_handler(event, context):
    if event["do"] == "print":
        lines, end = 0, time.monotonic() + event["s"]
        while time.monotonic() < end or lines < event["lines"]:
            written = os.write(1, BLOCK)
            lines += written // 10
        return lines
    return "x" * (LIMIT - 2 + event["over"])
