"""Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images, as a graph of Luigi tasks.

``luigi --module syndiff_tasks Downsample --ffi …`` finds the tasks here by name.
"""

__version__ = "0.1.0"

from .config import syndiff, use_shipped_settings

use_shipped_settings()

from .tasks import CombineBands, Convolve, DownloadSkycell, Downsample, MapFFI  # noqa: E402 - they ask for settings

__all__ = ["CombineBands", "Convolve", "DownloadSkycell", "Downsample", "MapFFI", "syndiff"]
