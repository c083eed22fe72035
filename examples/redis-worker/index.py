"""Works off a Redis stream that other programs write: XADD orders '*' item tea count 2."""


def main_handler(event, context):
    done = []
    for record in event["Records"]:
        fields = record["Redis"]["fields"]
        print(f"order {record['Redis']['id']}: {fields['count']} x {fields['item']}")
        done.append(fields["item"])
    return {"done": done}
