"""Fills /tmp, or whatever else takes a byte."""
import os

BLOCK = os.urandom(1024 * 1024)
# One mount each below, which takes all or nothing; of /tmp and the kernel's files others tell.
ASIDE = ("/tmp", "/proc", "/sys")
MOUNTS = ("/usr", "/var/user", "/var/runtime")


def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(BLOCK)


def elsewhere():
    """Folders beside /tmp that keep what is written to a file in them."""
    found = []
    for folder, folders, _ in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ASIDE]
        if folder in MOUNTS:
            folders.clear()
        path = os.path.join(folder, "hostile")
        try:
            with open(path, "wb", buffering=0) as file:
                file.write(BLOCK)
            found.append(folder)
        except OSError:
            pass
    return found


def main_handler(event, context):
    if event["where"] == "tmp":
        fill("/tmp/hostile")
    return elsewhere()
