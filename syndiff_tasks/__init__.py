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

from .config import UnknownSetting, syndiff, use_shipped_settings  # noqa: E402


def _command():
    """Return the name of the command that this process is, as ``luigi``, also of ``python -m luigi``."""
    folder, name = os.path.split(sys.argv[0] if getattr(sys, "argv", None) else "")
    # While a package is being imported for `python -m`, this stands for the name of the module.
    if name == "-m" and __name__ in sys.orig_argv:
        return __name__
    return os.path.basename(folder) if name == "__main__.py" else name


_COMMAND = _command()

try:
    use_shipped_settings()
except UnknownSetting as error:
    # To a program of somebody's own it is an error; a person needs the sentence alone.
    if _COMMAND in ("luigi", "luigid", "run_sector", __name__):
        sys.exit(str(error))
    raise

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


if _COMMAND in ("luigi", "run_sector"):
    importlib.import_module(".process", __name__).end_in_a_sentence()

# Luigi knows a task by name once its class is there. With all that the tasks need that takes seconds, of which commands
# that only look are spared.
if _COMMAND not in (__name__, "luigid"):
    importlib.import_module(".tasks", __name__)
