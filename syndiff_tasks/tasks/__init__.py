"""The graph: what each product needs, and what makes it; Luigi finds each task here by name.

All tasks of an FFI are known before the first one runs: which skycells lie under an FFI follows from its header and
the ring table alone.
"""

from .difference import Difference
from .pointing import DriftOffsets, ReferenceFFI
from .sector import EveryFFI, Sector
from .skycell import CombineBands, DownloadSkycell
from .template import Convolve, Downsample, MapFFI

__all__ = [
    "CombineBands",
    "Convolve",
    "Difference",
    "DownloadSkycell",
    "Downsample",
    "DriftOffsets",
    "EveryFFI",
    "MapFFI",
    "ReferenceFFI",
    "Sector",
]
