"""Fills /tmp, or finds whatever else can be written to."""
import os


def fill(path):
    block = os.urandom(1024 * 1024)
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(block)


def elsewhere():
    """Folders outside of /tmp in which a file can be made, and how much that file can hold."""
    found = {}
    for folder, folders, _ in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/tmp", "/proc")]
        try:
            path = os.path.join(folder, "hostile")
            open(path, "wb").close()
            os.remove(path)
            found[folder] = "writable"
        except OSError:
            pass
    return found


def main_handler(event, context):
    if event["where"] == "tmp":
        fill("/tmp/hostile")
    return elsewhere()
