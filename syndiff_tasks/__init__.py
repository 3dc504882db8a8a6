"""Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images, as a graph of Luigi tasks.

``luigi --module syndiff_tasks Downsample --ffi …`` finds the tasks here by name.
"""

import os

__version__ = "0.1.0"

# One process pool, Luigi's: a matrix product that splits over the cores would fight with the other workers for them,
# and the order of its sums with the number of cores. NumPy reads this once, when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .config import syndiff, use_shipped_settings  # noqa: E402

use_shipped_settings()

from .tasks import (  # noqa: E402 - they ask for settings
    CombineBands,
    Convolve,
    DownloadSkycell,
    Downsample,
    DriftOffsets,
    EveryFFI,
    MapFFI,
    ReferenceFFI,
    Sector,
)

__all__ = [
    "CombineBands",
    "Convolve",
    "DownloadSkycell",
    "Downsample",
    "DriftOffsets",
    "EveryFFI",
    "MapFFI",
    "ReferenceFFI",
    "Sector",
    "syndiff",
]
