"""A made-up field: a template file as the design describes it, and the FFI of the same stars and one transient."""

from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy.special import ndtr

from syndiff_tasks.pixels.mask import DQ

FFI_SHAPE = (2078, 2136)
REGION = (900, 700, 1100, 860)
SCALE = 0.0211
SKYCELLS = ("skycell.2180.096", "skycell.2180.097", "skycell.2246.006")


class Field(NamedTuple):
    image: np.ndarray
    uncertainty: np.ndarray
    transient: tuple  # x, y [FFI px], flux [e/s]
    saturated: tuple  # (x, y) of the damaged stars [FFI px]
    header: fits.Header  # WCS of the whole FFI


def ffi_header():
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["CRVAL1"], header["CRVAL2"] = 121.4, 63.2
    header["CRPIX1"], header["CRPIX2"] = 1045.0, 1001.0
    header["CD1_1"], header["CD1_2"] = 0.0031, 0.0047
    header["CD2_1"], header["CD2_2"] = -0.0047, 0.0031
    header["A_ORDER"] = header["B_ORDER"] = 2
    header["A_2_0"], header["A_0_2"], header["A_1_1"] = 2.1e-6, 1.3e-6, -0.8e-6
    header["B_2_0"], header["B_0_2"], header["B_1_1"] = -1.1e-6, 1.9e-6, 0.6e-6
    header["RADESYS"], header["EQUINOX"] = "ICRS", 2000.0
    return header


def stars(image, xs, ys, fluxes, sigma):
    """Add Gaussians integrated over pixels by the error function, far enough out to lose nothing."""
    for x, y, flux in zip(xs, ys, fluxes, strict=True):
        x0, y0 = max(int(x) - 8, 0), max(int(y) - 8, 0)
        box = image[y0 : y0 + 18, x0 : x0 + 18]
        edges_y, edges_x = (np.arange(n + 1) - 0.5 for n in box.shape)
        box += flux * np.outer(np.diff(ndtr((edges_y - (y - y0)) / sigma)), np.diff(ndtr((edges_x - (x - x0)) / sigma)))


def make_field(path, *, region=REGION, n_stars=260, ffi_sigma=0.6, template_sigma=0.6, oversampling=1, seed=1):
    """Write a template file and return the FFI that goes with it."""
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = region
    xs, ys = rng.uniform(x0, x1, n_stars), rng.uniform(y0, y1, n_stars)
    fluxes = 30 * rng.pareto(1.1, n_stars).clip(0, 400)
    transient = ((x0 + x1) / 2 + 11.3, (y0 + y1) / 2 - 17.2, 160.0)
    clear = np.hypot(xs - transient[0], ys - transient[1]) > 3
    xs, ys, fluxes = xs[clear], ys[clear], fluxes[clear]
    saturated = ((x0 + 0.2 * (x1 - x0), y0 + 0.3 * (y1 - y0)), (x0 + 0.8 * (x1 - x0), y0 + 0.7 * (y1 - y0)))

    image = np.zeros(FFI_SHAPE)
    stars(image, xs, ys, fluxes, ffi_sigma)
    stars(image, *np.transpose(saturated), [9e4, 3e4], ffi_sigma)
    stars(image, [transient[0]], [transient[1]], [transient[2]], ffi_sigma)
    y, x = np.ogrid[: FFI_SHAPE[0], : FFI_SHAPE[1]]
    image += 120 + 0.01 * x - 0.02 * y
    uncertainty = np.sqrt(0.8**2 + image / 1000).astype(np.float32)
    image = image.astype(np.float32)
    image[y0:y1, x0:x1] += rng.normal(0, 1, (y1 - y0, x1 - x0)) * uncertainty[y0:y1, x0:x1]

    write_template(path, region, (xs, ys, fluxes), saturated, template_sigma, oversampling)
    return Field(image, uncertainty, transient, saturated, ffi_header())


def write_template(path, region, catalogue, saturated, sigma, n):
    x0, y0, x1, y1 = region
    shape = ((y1 - y0) * n, (x1 - x0) * n)
    xs, ys, fluxes = catalogue
    flux = np.zeros(shape)
    stars(flux, (xs - x0 + 0.5) * n - 0.5, (ys - y0 + 0.5) * n - 0.5, fluxes / SCALE, sigma * n)
    y, x = np.ogrid[: shape[0], : shape[1]]
    dq = np.zeros(shape, dtype=np.int32)
    for sx, sy in saturated:
        near = np.hypot((x + 0.5) / n - 0.5 + x0 - sx, (y + 0.5) / n - 0.5 + y0 - sy)
        dq[near < 1.5] |= int(DQ.SAT_PS1)
    coverage = np.ones(shape, dtype=np.float32)
    hole = (x < 6 * n) & (y > shape[0] - 5 * n)
    coverage[hole], flux[hole] = 0, np.nan
    dq[hole] |= int(DQ.NO_PS1)
    dq[:, shape[1] // 2] |= int(DQ.PROJECTION_SEAM)
    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus[0].header.update(
        {"SYNDIFF": True, "DX_SHIFT": 0.0, "DY_SHIFT": 0.0, "ROI": ",".join(map(str, region)), "PSFSIGMA": 40.0}
    )
    header = ffi_header()
    for i, first in ((1, x0), (2, y0)):
        header[f"CRPIX{i}"] = (header[f"CRPIX{i}"] - 0.5 - first) * n + 0.5
        for j in (1, 2):
            header[f"CD{i}_{j}"] /= n
    for name in [name for name in header if name[:2] in ("A_", "B_") and name[2].isdigit()]:
        header[name] /= n ** (int(name[2]) + int(name[4]) - 1)
    variance = np.where(np.isnan(flux), np.nan, 4.0 / n**2)
    images = {
        "FLUX_SUM": flux,
        "VARIANCE": variance,
        "COVERAGE": coverage,
        "COUNT": coverage * 6750,
        "MASKED": 0 * coverage,
    }
    for name, image in images.items():
        hdus.append(fits.ImageHDU(image.astype(np.float32), header, name))
    hdus["FLUX_SUM"].header["BUNIT"] = "count/s"
    hdus.append(fits.ImageHDU(dq, header, "DQ"))
    table = np.array(
        [(SKYCELLS[0], "rizy", 5000), (SKYCELLS[1], "riz", 4000), (SKYCELLS[2], "rizy", 0)],
        dtype=[("NAME", "U16"), ("BANDS", "U4"), ("PIXELS", "i4")],
    )
    hdus.append(fits.BinTableHDU(table, name="SKYCELLS"))
    hdus.append(fits.BinTableHDU(np.zeros(0, dtype=[("SOURCE", "i8"), ("RA", "f8")]), name="STARS"))
    hdus.writeto(path, overwrite=True, checksum=True)
