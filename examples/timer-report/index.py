"""Reports at every tick; what it counts survives in /tmp as long as its sandbox does."""

import json
import pathlib

STATE = pathlib.Path("/tmp/ticks.json")


def main_handler(event, context):
    if event.get("Type") != "Timer":
        return {"error": "this function is for its timer"}
    seen = json.loads(STATE.read_text()) if STATE.exists() else []
    seen.append(event["Time"])
    STATE.write_text(json.dumps(seen[-10:]))
    print(f"{event['TriggerName']} at {event['Time']}: {event['Message']}")
    return {"trigger": event["TriggerName"], "message": event["Message"]}
