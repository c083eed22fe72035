# code
import json
import os
import threading
import time


def main_handler(event, context):
    for number in range(event.get("print", 1)):
        print("line", number, json.dumps(event, ensure_ascii=False))
    if event.get("late"):
        # Its line comes when no event runs.
        threading.Timer(0.3, print, ["from a thread"]).start()
    time.sleep(event.get("sleep", 0))
    if "raise" in event:
        raise ValueError(event["raise"])
    return {"greeting": os.environ.get("GREETING"), "event": event}


def fail(event, context):
    raise RuntimeError(event.get("pins"))


def work(event, context):
    if "raise" in json.dumps(event):
        raise ValueError("pending")
    return "done"
