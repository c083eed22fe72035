"""Answers an HTTP request with its body."""


def main_handler(event, context):
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": event["body"],
    }
