"""Owners of temporaries, made up for tests."""

from syndiff_tasks.io.liveness import owner


def owned_by(pid):
    """Return the owner that a process of this host with this number is, whenever it started."""
    return f"{pid}-0-{owner().rpartition('-')[2]}"


DEAD = owned_by(99999999)  # more than the kernel gives
