"""Other people's data, no part of this repository: the tests that look at them are skipped where there are none."""

import os
from pathlib import Path

import pytest
from astropy.io import fits

FOLDER = Path(os.environ.get("SYNDIFF_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def present(name):
    """Return the path of a file or folder, or skip the test."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER}; SYNDIFF_REAL_DATA names another folder")
    return FOLDER / name


def prfs():
    """Return SPOC's PRFs, each an image, or skip the test."""
    return [fits.getdata(path).astype(float) for path in sorted(present("tess_prf").glob("*.fits"))]
