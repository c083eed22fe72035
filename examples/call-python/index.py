"""Calls itself through the endpoint of its own sandbox: n! is n times (n - 1)!."""

import json
import os
import urllib.request


def invoke(function, event):
    """The answer of another function of this namespace."""
    request = urllib.request.Request(
        f"{os.environ['HANSHU_ENDPOINT']}/v1/functions/{function}/invocations"
        f"?namespace={os.environ['SCF_NAMESPACE']}",
        data=json.dumps(event).encode(),
        headers={"authorization": f"Bearer {os.environ['HANSHU_TOKEN']}"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def main_handler(event, context):
    n = event["n"]
    if n <= 1:
        return {"factorial": 1}
    rest = invoke(context["function_name"], {"n": n - 1})
    return {"factorial": n * rest["factorial"]}
