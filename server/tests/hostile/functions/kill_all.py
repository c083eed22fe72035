"""Kills whatever it can, itself included."""
import os


def main_handler(event, context):
    for pid in (-1, 1):
        try:
            os.kill(pid, 9)
        except OSError:
            pass  # -1 leaves out process 1 and oneself
    os.kill(os.getpid(), 9)
