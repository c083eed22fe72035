import os


def main_handler(event, context):
    name = event.get("name", "world")
    print(f"greeting {name}")  # hanshu logs shows it
    return {"message": f"{os.environ['GREETING']}, {name}!"}
