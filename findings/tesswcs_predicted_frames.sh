#!/usr/bin/env bash
# tesswcs 1.9.3: predicted frames have the chip's axes swapped, and from sector 92 on SIP is kept about another origin.
#
# A TESS Full Frame Image is 2136 columns by 2078 rows; astropy's WCS.pixel_shape counts x first: (2136, 2078). The WCS
# that from_archive gives for an observed sector says so; `predict` gives (2078, 2136) for the same chip.
# The FITS convention counts SIP polynomials from CRPIX. For sectors in which SPOC moved CRPIX from (1045, 1001) to
# (1069, 1025), the WCS has the new CRPIX and polynomials about the old one, which no FITS header can
# express.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "tesswcs==1.9.3" "astropy==7.2.0"
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import importlib.metadata
import warnings

warnings.simplefilter("ignore")
import tesswcs

version = importlib.metadata.version("tesswcs")
observed = tesswcs.WCS.from_archive(sector=20, camera=3, ccd=3)
predicted = tesswcs.WCS.predict(ra=210.0, dec=54.0, roll=0.0, camera=3, ccd=3)
print(f"tesswcs {version}: pixel_shape from_archive {observed.pixel_shape}, predict {predicted.pixel_shape}")
assert observed.pixel_shape == (2136, 2078) and predicted.pixel_shape == (2078, 2136)

late = tesswcs.WCS.from_archive(sector=95, camera=1, ccd=1)
print(f"sector 95: CRPIX {late.wcs.crpix}, origin of SIP {late.sip.crpix}")
assert late.wcs.crpix.tolist() == [1069.0, 1025.0] and late.sip.crpix.tolist() == [1045.0, 1001.0]
PYTHON
echo "Seen: (2136, 2078) against (2078, 2136); SIP about (1045, 1001) where CRPIX is (1069, 1025)."
