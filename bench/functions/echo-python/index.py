"""Answers with the event."""


def main_handler(event, context):
    return event
