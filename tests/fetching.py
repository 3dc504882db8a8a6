"""Files, mirrors and a clock for the tests of fetching."""

import contextlib
import hashlib
import random
from pathlib import Path

from syndiff_tasks.io import archive
from syndiff_tasks.io.archive import RetryPolicy

QUICK = RetryPolicy(tries=3, connect_timeout=0.3, read_timeout=0.1, first_wait=0.001, longest_wait=0.002)
FILES = archive.stack_files("skycell.2180.097", "riz", ["image"])
PATH = FILES["r_image"]
NAME = PATH.rpartition("/")[2]


def sealed(seed, size=30_000):
    """Make a body that begins like FITS and ends with its own digest, so that any damage shows."""
    rest = random.Random(seed).randbytes(size)
    body = b"SIMPLE  =                    T" + rest
    return body + hashlib.sha256(body).digest()


def unseal(path):
    body = Path(path).read_bytes()
    if hashlib.sha256(body[:-32]).digest() != body[-32:]:
        raise ValueError(f"{path}: the seal is broken")
    return len(body)


BODY = sealed(1)


def keyed(read):
    """A reader that asks for the path alone, as `archive.fetch_all` wants it."""
    return lambda _, path: read(path)


def fetch(path, bases, folder, policy, read):
    """Fetch one file and keep it under its name; what else was said of it where it did not come."""
    with contextlib.closing(archive.fetch_all({"it": path}, bases, folder, policy, keyed(read))) as came:
        _, file = next(came)
        if not isinstance(file, archive.FetchedFile):
            return file
        return file._replace(path=file.path.replace(Path(folder) / path.rpartition("/")[2]))


def leftovers(folder):
    """List what is in the folder besides finished files: temporaries above all."""
    return sorted(
        path.name for path in Path(folder).iterdir() if not path.name.startswith(("rings.v3", ".pause+", ".proven+"))
    )


def ranges_asked(server):
    return [headers.get("Range") for _, headers in server.asked]


class Clock:
    """A clock of its own, which goes on only by waiting; keeps the waits."""

    def __init__(self, now=1_700_000_000.0):
        self.now, self.since, self.waits = now, 0.0, []

    def time(self):
        return self.now

    def monotonic(self):
        return self.since

    def wait(self, seconds, stop):
        self.waits.append(seconds)
        self.now += seconds
        self.since += seconds
