"""Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images, as a graph of Luigi tasks.

``luigi --module syndiff_tasks Downsample --ffi …`` finds the tasks here by name.
"""

import importlib
import os
import sys

__version__ = "0.1.0"

# One process pool, Luigi's: a matrix product that splits over the cores would fight with the other workers for them,
# and the order of its sums with the number of cores. NumPy reads this once, when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .config import syndiff, use_shipped_settings  # noqa: E402

use_shipped_settings()

TASKS = (
    *("CombineBands", "Convolve", "DownloadSkycell", "Downsample", "DriftOffsets", "EveryFFI", "MapFFI"),
    *("ReferenceFFI", "Sector"),
)

__all__ = [*TASKS, "syndiff"]


def __getattr__(name):
    """Import the tasks when the first one is asked for (PEP 562)."""
    if name not in TASKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".tasks", __name__), name)


def _runs_no_task():
    """Tell whether this is a command of ours that only looks: ``syndiff_tasks``, ``python -m`` of it, or luigid."""
    command = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    # While a package is being imported for `python -m`, this stands for the name of the module.
    return command in ("syndiff_tasks", "luigid") or command == "-m" and __name__ in sys.orig_argv


# Luigi knows a task by name once its class is there. With all that the tasks need that takes seconds.
if not _runs_no_task():
    importlib.import_module(".tasks", __name__)
