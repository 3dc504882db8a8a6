"""Whether a process of this host is alive."""

import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Tell whether a process of this host can still write: one that waits for its parent to notice its end cannot."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        # proc(5): the state follows the name, which stands in parentheses and may hold some itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return not Path("/proc/self").exists()
