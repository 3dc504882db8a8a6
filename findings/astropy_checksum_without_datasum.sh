#!/usr/bin/env bash
# astropy 8.0.2 and fitsio 1.4.2 call a valid CHECKSUM wrong where the HDU has no DATASUM, as in TESS's images.
#
# CHECKSUM makes the ones' complement sum of all words of an HDU, header and data, minus zero (FITS standard 4.0,
# section 4.4.2.7); DATASUM is a keyword of its own. Full Frame Images of TESS come with CHECKSUM alone. astropy takes the
# missing sum of the data for 0 and warns that the checksum verification failed, so that with warnings as errors each such
# file is refused; fitsio raises "data checksum failed". The script sums the words of its file plainly first.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "astropy==8.0.2" "fitsio==1.4.2"
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import warnings

import astropy
import fitsio
import numpy as np
from astropy.io import fits


def sum32(data):
    """Return the ones' complement sum of the big-endian words, computed plainly."""
    total = sum(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encoded(value):
    """Return the 16 characters of Appendix J of the standard for a complement."""
    characters = [[0] * 4 for _ in range(4)]
    for byte in range(4):
        part = (value >> (24 - 8 * byte)) & 0xFF
        four = [part // 4 + 48 + (part % 4 if first == 0 else 0) for first in range(4)]
        excluded = {*range(58, 65), *range(91, 97)}
        while excluded & set(four):
            for pair in (0, 2):
                if excluded & {four[pair], four[pair + 1]}:
                    four[pair] += 1
                    four[pair + 1] -= 1
        for n in range(4):
            characters[n][byte] = four[n]
    text = "".join(chr(one) for row in characters for one in row)
    return text[-1] + text[:-1]


image = fits.ImageHDU(np.arange(1, 65, dtype=np.float32).reshape(8, 8))
image.header["CHECKSUM"] = "0" * 16
fits.HDUList([fits.PrimaryHDU(), image]).writeto("image.fits")
content = bytearray(open("image.fits", "rb").read())
with fits.open("image.fits") as hdus:
    start = hdus[1].fileinfo()["hdrLoc"]
at = content.index(b"'" + b"0" * 16 + b"'", start) + 1
content[at : at + 16] = encoded(~sum32(content[start:]) & 0xFFFFFFFF).encode()
open("image.fits", "wb").write(content)
assert sum32(content[start:]) == 0xFFFFFFFF, "the file of this script is not valid"

with fitsio.FITS("image.fits") as file:
    try:
        file[1].verify_checksum()
        said = "right"
    except ValueError as error:
        said = str(error)
print(f"fitsio {fitsio.__version__}: {said}")
assert said == "data checksum failed"
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    with fits.open("image.fits", checksum=True) as hdus:
        hdus[1].data.sum()
messages = [" ".join(str(one.message).split()) for one in seen]
print(f"astropy {astropy.__version__}: {messages}")
assert any("Checksum verification failed" in message for message in messages)
PYTHON
echo "Seen: both refuse a file whose words sum to minus zero, as the standard asks."
