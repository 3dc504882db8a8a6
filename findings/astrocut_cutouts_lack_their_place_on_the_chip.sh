#!/usr/bin/env bash
# astrocut 1.4.0: target pixel files do not say where on the chip they were cut.
#
# Files of TESScut made by astrocut 0.11.1 have a physical WCS on each image column of PIXELS (1CRV5P, 2CRV5P: column and
# row of the lower left pixel on the Full Frame Image), and lightkurve reads its `column` and `row` from it. Of a valid
# cube, astrocut 1.4.0 writes no column WCS keyword at all; WCS_MSEP, the error of the cut-out's linear WCS, is 0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "astrocut==1.4.0" "astropy==7.2.0"
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import re
import warnings

import astropy.units as u
import numpy as np
from astrocut import CubeFactory, CutoutFactory, __version__
from astropy.coordinates import SkyCoord
from astropy.io import fits

warnings.simplefilter("ignore")
names = []
for n in range(3):
    primary = fits.PrimaryHDU()
    image = fits.ImageHDU(np.full((300, 300), n + 1.0, np.float32), name="CAMERA.CCD 3.3 cal")
    error = fits.ImageHDU(np.ones((300, 300), np.float32), name="CAMERA.CCD 3.3 uncert")
    for header in (primary.header, image.header):
        header["CAMERA"], header["CCD"], header["FFIINDEX"] = 3, 3, 11000 + n
        header["TSTART"], header["TSTOP"] = 1868.0 + n / 48, 1868.0 + (n + 1) / 48
        header["DATE-OBS"], header["DATE-END"] = f"2020-01-19T{12 + n}:00:00", f"2020-01-19T{12 + n}:30:00"
        header["BARYCORR"], header["DQUALITY"] = 0.001, 0
    header = image.header
    header["WCSAXES"] = 2
    header["CTYPE1"], header["CTYPE2"], header["CUNIT1"], header["CUNIT2"] = "RA---TAN-SIP", "DEC--TAN-SIP", "deg", "deg"
    header["CRPIX1"], header["CRPIX2"], header["CRVAL1"], header["CRVAL2"] = 150.0, 150.0, 210.0, 54.0
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = 0.0057, 0.0, 0.0, 0.0057
    header["A_ORDER"] = header["B_ORDER"] = 2
    header["A_2_0"], header["B_0_2"] = 1e-5, 1e-5
    header["CRVAL1P"] = header["CRVAL2P"] = 1
    names.append(f"tess202001912{n}000-s0020-3-3-0165-s_ffic.fits")
    fits.HDUList([primary, image, error]).writeto(names[-1])
cube = CubeFactory().make_cube(names, "cube.fits", sector=20, verbose=False)
cut = CutoutFactory().cube_cut(cube, SkyCoord(210, 54, unit="deg"), 48, output_path=".", verbose=False)
with fits.open(cut) as hdus:
    place = [key for key in hdus["PIXELS"].header if re.fullmatch(r"[12]CR(V|P)\d+P|WCSN\d+P|[12]CTYP\d+", key)]
    error = hdus["APERTURE"].header.get("WCS_MSEP")
    sip = hdus["APERTURE"].header["CTYPE1"]
print(f"astrocut {__version__}: column WCS keywords {place}, WCS_MSEP {error}, APERTURE {sip}")
assert place == [] and error == 0.0
PYTHON
echo "Seen: no keyword of the column WCS ([]), WCS_MSEP 0.0 although the linear WCS of the cut-out drops a SIP term."
