"""Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images."""

__version__ = "0.1.0"
