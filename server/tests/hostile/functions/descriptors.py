"""Opens files until it may not, in itself and in children that stay."""
import os
import time


def flood():
    while True:
        os.open("/dev/null", os.O_RDONLY)


def main_handler(event, context):
    for _ in range(event["children"]):
        if os.fork() == 0:
            try:
                flood()
            except OSError:
                time.sleep(60)
    flood()
