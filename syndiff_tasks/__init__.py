"""Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images, as a graph of Luigi tasks.

``luigi --module syndiff_tasks Downsample --ffi …`` finds the tasks here by name. Importing the package has no effects,
except in the programs ``luigi`` and ``luigid``, which have no other way of loading our settings and tasks.
"""

import importlib
import os
import sys

__version__ = "0.1.0"

TASKS = (
    *("CombineBands", "Convolve", "Difference", "DownloadSkycell", "Downsample", "DriftOffsets", "EveryFFI"),
    *("MapFFI", "ReferenceFFI", "Sector"),
)

# Public names, and the modules that define them.
_PLACES = dict.fromkeys(TASKS, ".tasks") | dict.fromkeys(("syndiff", "use_shipped_settings"), ".config")
_PLACES["template"] = ".api"

__all__ = list(_PLACES)


def __getattr__(name):
    """Import what is asked for by name when it is first used (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name], __name__), name)


def __dir__():
    return sorted({*globals(), *_PLACES})


def _program():
    """Return the name of the program that this process runs, ``luigi`` also for ``python -m luigi``."""
    folder, name = os.path.split(sys.argv[0] if getattr(sys, "argv", None) else "")
    return os.path.basename(folder) if name == "__main__.py" else name


if (_PROGRAM := _program()) in ("luigi", "luigid"):
    importlib.import_module(".command_line", __name__).begin(_PROGRAM)
