#!/usr/bin/env bash
# reproject 0.21.0 (with astropy 8.0.2) turns FK5 into ICRS even where both are J2000: by up to 30 milliarcseconds.
#
# Headers of Pan-STARRS1 images say RADESYS = 'FK5' although their astrometry is tied to catalogs in the ICRS; TESS's say
# 'ICRS'. Reprojected into a header that differs by that word alone, an image does not come back as it was: each pixel
# is interpolated 29 mas (RA 150, Dec 2) from its own center, 0.11 px of 0.25".
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "reproject==0.21.0" "astropy==8.0.2"
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import importlib.metadata

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from reproject import reproject_interp

header = fits.Header()
header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, 41, 41
header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
header["CRPIX1"] = header["CRPIX2"] = 21.0
header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
header["CDELT1"], header["CDELT2"] = -0.25 / 3600, 0.25 / 3600
header["EQUINOX"], header["RADESYS"] = 2000.0, "FK5"
target = header.copy()
target["RADESYS"] = "ICRS"
y, x = np.mgrid[:41, :41]
star = np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / (2 * 2.0**2))
moved, _ = reproject_interp((star, WCS(header)), WCS(target), shape_out=(41, 41), order="bicubic")
good = np.isfinite(moved)
shift = [float((moved[good] * place[good]).sum() / moved[good].sum() - 20) for place in (x, y)]
mas = 250 * float(np.hypot(*shift))
print(f"reproject {importlib.metadata.version('reproject')}: centroid moved by {shift[0]:+.4f}, {shift[1]:+.4f} px = {mas:.1f} mas")
assert 25 < mas < 32
PYTHON
echo "Seen: the centroid moved by +0.0898, +0.0713 px, 28.7 mas."
