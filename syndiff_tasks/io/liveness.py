"""Which process owns a temporary, and whether that process has ended.

A process number alone does not name a process: containers that share a data root number their processes alike, hosts
may share a name, and the kernel gives numbers again. An owner is a number, the time at which the process started, and
the place in which both hold: one boot of one host, and in it one PID namespace. Locks (flock) would not do: some NFS
mounts keep them on their own host, so that a file in use elsewhere looks free.
"""

import os
import re
import socket
import time
from pathlib import Path

import xxhash

OWNER = re.compile(r"(?P<pid>\d+)-(?P<started>\d+)-(?P<place>[0-9a-f]{16})")

_STATE, _START = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted from the state


def owner() -> str:
    """Return the name of this process among those of all hosts and containers: digits, letters a to f, and hyphens.

    Returns
    -------
    owner : str
        Process number, start in clock ticks since boot (0 where /proc does not show it), and a digest of the place.
    """
    stat = _stat("self")
    return f"{os.getpid()}-{stat[_START] if stat else 0}-{_place()}"


def abandoned(owner: str, path: str | os.PathLike, seconds_old: float) -> bool:
    """Return whether nobody writes a temporary any more.

    Parameters
    ----------
    owner : str
        What `owner` returned to the process that made the temporary.
    path : path-like
        The temporary.
    seconds_old : float
        Where the owner cannot be seen from here (another host or container, an earlier boot, a name given by another
        version), the temporary counts as abandoned when it was last modified so long ago [s].

    Returns
    -------
    abandoned : bool

    Raises
    ------
    FileNotFoundError
        If the temporary has gone in the meantime and its owner cannot be seen.
    """
    named = OWNER.fullmatch(owner)
    if named and named["place"] == _place():
        return not alive(int(named["pid"]), int(named["started"]))
    return time.time() - os.lstat(path).st_mtime > seconds_old


def alive(pid: int, started: int = 0) -> bool:
    """Return whether a process of this PID namespace is alive; a zombie, which waits to be reaped, is dead.

    Parameters
    ----------
    pid : int
        Process number, of any user; a process that may not be signaled is alive.
    started : int, optional
        Its start [clock ticks since boot]: a process that started at another time has got a number that was used
        before. 0 where it is not known.

    Returns
    -------
    alive : bool
    """
    of_another_user = False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        of_another_user = True
    if not _proc_is_ours():
        return True
    stat = _stat(pid)
    if stat is None:  # /proc may hide processes of other users; one of ours has just ended
        return of_another_user
    return stat[_STATE] not in ("Z", "X") and started in (0, int(stat[_START]))


def _place():
    """Return a digest of the host's name, its boot, and the namespaces in which process numbers and times hold."""
    seen = [socket.gethostname()]
    try:
        seen.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        seen += [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time")]
    except OSError:
        pass  # not Linux, or older than Linux 5.6, which has no namespaces of time
    return xxhash.xxh3_64_hexdigest("\n".join(seen).encode())


def _proc_is_ours():
    """Return whether /proc shows the PID namespace of this process: it stays the parent's where it is not remounted."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _stat(pid):
    """Return the fields of /proc/PID/stat from the state on; None where it cannot be read."""
    try:
        # proc(5): the state follows the name, which is in parentheses and may contain parentheses.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
