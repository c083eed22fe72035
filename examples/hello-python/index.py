"""Greets whoever is named: by a call, by HTTP, or by its timer."""

import os


def main_handler(event, context):
    greeting = os.environ.get("GREETING", "hello")
    if "httpMethod" in event:  # the HTTP trigger
        name = event["pathParameters"].get("name", "world")
        return {
            "statusCode": 200,
            "headers": {"content-type": "text/plain; charset=utf-8"},
            "body": f"{greeting}, {name}!\n",
        }
    name = event.get("name") or event.get("Message") or "world"
    print(f"greeting {name} as {context['request_id']}")
    return {"message": f"{greeting}, {name}!"}
