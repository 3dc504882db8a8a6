"""Whether a process of this host is alive."""

import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Return whether a process of this host is alive; a zombie, which waits for its parent to reap it, is dead.

    Parameters
    ----------
    pid : int
        Process number, of any user; a process that may not be signaled is alive.

    Returns
    -------
    alive : bool
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        # proc(5): the state follows the name, which is in parentheses and may contain parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return not Path("/proc/self").exists()
