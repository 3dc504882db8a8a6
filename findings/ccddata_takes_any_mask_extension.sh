#!/usr/bin/env bash
# CCDData.read (astropy 8.0.2) takes any extension that is called MASK as its boolean mask, whatever the extension holds.
#
# A FITS file with a float image and a second float image EXTNAME = 'MASK' (a count of masked input pixels, say) is
# valid. One would expect the second image to be left alone, as it is not a uint8 plane; instead each pixel above 0
# becomes masked, without a warning, even though `hdu=1` was asked for explicitly.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "astropy==8.0.2" "numpy==2.4.6"
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import warnings

import astropy
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData

warnings.simplefilter("error")
counts = np.array([[0.0, 0.25], [3.5, 0.0]], np.float32)
image = fits.ImageHDU(np.ones((2, 2), np.float32), name="FLUX")
image.header["BUNIT"] = "electron/s"
fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(counts, name="MASK")]).writeto("product.fits")
read = CCDData.read("product.fits", hdu=1)
print(f"astropy {astropy.__version__}: mask dtype {read.mask.dtype}, mask {read.mask.tolist()}")
assert read.mask.dtype == bool
assert read.mask.tolist() == [[False, True], [True, False]]
PYTHON
echo "Seen: the float plane came back as the boolean mask [[False, True], [True, False]], without a warning."
