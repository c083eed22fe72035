"""Sleeps as long as the event says, in seconds; not at all where it says nothing."""

import time


def main_handler(event, context):
    if "sleep" in event:
        time.sleep(event["sleep"])
    return {}
