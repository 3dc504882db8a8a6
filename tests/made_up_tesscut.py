"""Target pixel files in the form of TESScut, made up."""

import numpy as np
from astropy.io import fits

from syndiff_tasks.demo import frame
from syndiff_tasks.geometry.tansip import pixel_to_sky

NAME = "tess-s0020-3-3_216.752000_56.372000_12x10_astrocut.fits"


def write_tesscut(folder, shape=(7, 10, 12), origin=(1700, 750), column=5, name=NAME, changes=None):
    """Write a target pixel file in the form of astrocut; `origin` None is that of its versions 1.0 to 1.4."""
    n, ny, nx = shape
    rng = np.random.default_rng(3)
    flux = rng.normal(100, 3, shape).astype(np.float32)
    image = {"format": f"{ny * nx}E", "dim": f"({nx}, {ny})"}
    columns = [
        fits.Column("TIME", "D", array=1900 + np.arange(n) / 48),
        fits.Column("TIMECORR", "E", array=np.full(n, 3e-3)),
        fits.Column("CADENCENO", "J", array=np.zeros(n)),
        fits.Column("RAW_CNTS", f"{ny * nx}J", dim=f"({nx}, {ny})", array=np.zeros(shape)),
        fits.Column("FLUX", array=flux, **image),
        fits.Column("FLUX_ERR", array=np.full(shape, 3, np.float32), **image),
        fits.Column("QUALITY", "J", array=np.where(np.arange(n) == n // 2, 4, 0)),
        fits.Column("FFI_FILE", "38A", array=[f"tess202001913{k:02d}23-s0020-3-3-0165-s_ffi" for k in range(n)]),
    ]
    pixels = fits.BinTableHDU.from_columns(columns, name="PIXELS")
    if origin is not None:
        for axis in (1, 2):
            pixels.header[f"{axis}CRV{column}P"] = origin[axis - 1] + 2
            pixels.header[f"{axis}CRP{column}P"] = 2
    aperture = fits.ImageHDU(np.ones((ny, nx), np.int32), name="APERTURE")
    linear = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 216.752, "CRVAL2": 56.372}
    linear |= {"CRPIX1": 6.5, "CRPIX2": 5.5, "CDELT1": 1.0, "CDELT2": 1.0, "RADESYS": "ICRS", "WCS_FFI": "tess.fits"}
    linear |= {"PC1_1": 0.0053, "PC1_2": -0.0013, "PC2_1": 0.0009, "PC2_2": 0.0052, "WCS_MSEP": 9e-6}
    aperture.header.update(linear | (changes or {}))
    primary = fits.PrimaryHDU()
    primary.header.update({"TELESCOP": "TESS", "SECTOR": 20, "CAMERA": 3, "CCD": 3, "DATE-OBS": "2020-01-19T13:58:14"})
    path = folder / name
    fits.HDUList([primary, pixels, aperture]).writeto(path, checksum=True)
    return path, flux


def linear_wcs(center, tansip=frame.TANSIP):
    """Cards of the tangent WCS that touches that of an FFI at pixel `center`; CRPIX is that of a 12 x 10 image."""
    x, y = center
    step = np.array([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    ra, dec = np.array(pixel_to_sky(tansip, x + step[:, 0], y + step[:, 1]))
    xi, eta = (ra - ra[0]) * np.cos(np.radians(dec[0])), dec - dec[0]
    cards = {"CRVAL1": ra[0], "CRVAL2": dec[0], "CRPIX1": 6.5, "CRPIX2": 5.5}
    cards |= {"PC1_1": xi[1] - xi[2], "PC1_2": xi[3] - xi[4], "PC2_1": eta[1] - eta[2], "PC2_2": eta[3] - eta[4]}
    return {name: float(value) for name, value in cards.items()}
