"""An FFI of the made-up sky, in the form in which SPOC delivers its own."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.io import fits

from syndiff_tasks.demo.gaussians import Mixture
from syndiff_tasks.demo.truth import expected_template
from syndiff_tasks.geometry.region import SCIENCE
from syndiff_tasks.geometry.tansip import TanSip, tansip_keywords

NAME = "tess2020019135923-s0020-3-3-0165-s_ffic.fits"
SHAPE = (2078, 2136)

# Time on source of a half-hour FFI, its 720 reads and their noise: header of a real one.
EXPOSURE = 1425.6  # s
READS, READ_NOISE = 720, 7.4  # electrons


def _polynomial(terms: dict) -> np.ndarray:
    result = np.zeros((5, 5))
    for (p, q), value in terms.items():
        result[p, q] = value
    return result


# Made up, but of the size, parity and structure of sector 20, camera 3, CCD 3.
TANSIP = TanSip(
    crval1=216.752,
    crval2=76.3925,
    crpix1=1045.0,
    crpix2=1001.0,
    cd=np.array([[0.002161, -0.005333], [0.00528, 0.002026]]),
    a=_polynomial(
        {
            **{(2, 0): 1.989e-5, (1, 1): 1.714e-5, (0, 2): 3.05e-6},
            **{(3, 0): -2.82e-9, (2, 1): -1.83e-10, (1, 2): -2.89e-9, (0, 3): -2.28e-10},
            **{(4, 0): 2.29e-13, (3, 1): 3.73e-13, (2, 2): 3.96e-13, (1, 3): 2.62e-13, (0, 4): 1.3e-13},
        }
    ),
    b=_polynomial(
        {
            **{(2, 0): 3.03e-6, (1, 1): 1.716e-5, (0, 2): 1.992e-5},
            **{(3, 0): -2.29e-10, (2, 1): -2.92e-9, (1, 2): -1.93e-10, (0, 3): -2.79e-9},
            **{(4, 0): 1.48e-13, (3, 1): 2.53e-13, (2, 2): 4.48e-13, (1, 3): 3.1e-13, (0, 4): 2.42e-13},
        }
    ),
    lonpole=180.0,
)


class Exposed(NamedTuple):
    """A calibrated frame.

    Attributes
    ----------
    image, uncertainty : ndarray of float32, shape (2078, 2136)
        Electrons/s.
    """

    image: np.ndarray
    uncertainty: np.ndarray


def inverse_polynomials(tansip: TanSip) -> dict:
    """AP and BP keywords, fitted as the producers of real FFIs fit theirs: wrong by some tenths of a pixel.

    Parameters
    ----------
    tansip : TanSip
        Whose A and B are to be inverted.

    Returns
    -------
    dict
        AP_ORDER, AP_p_q and the same of BP, of the order of A.
    """
    order = len(tansip.a) - 1
    u, v = (g.ravel() for g in np.meshgrid(np.linspace(-1000.0, 1046, 30), np.linspace(-1000.0, 1046, 30)))
    forward = [np.polynomial.polynomial.polyval2d(u, v, c) for c in (tansip.a, tansip.b)]
    terms = [(p, q) for p in range(order + 1) for q in range(order + 1 - p) if p + q > 0]
    scaled = [(c + f) / 1000 for c, f in zip((u, v), forward, strict=True)]
    design = np.stack([scaled[0] ** p * scaled[1] ** q for p, q in terms], axis=-1)
    result = {}
    for letter, shift in zip(("AP", "BP"), forward, strict=True):
        fitted = np.linalg.lstsq(design, -shift, rcond=None)[0]
        result[f"{letter}_ORDER"] = order
        result |= {f"{letter}_{p}_{q}": value / 1000.0 ** (p + q) for (p, q), value in zip(terms, fitted, strict=True)}
    return result


def expose(sources: pd.DataFrame, sigma_psf: float, star: Mixture | None = None, noise: int | None = 1) -> Exposed:
    """Take a picture of the sky.

    Parameters
    ----------
    sources : pandas.DataFrame
        As `sky.source_table` gives it, the transient among them.
    sigma_psf : float
        Point-spread function of TESS, native PS1 px: that to which a template is blurred.
    star : Mixture, optional
        Star image of the skycells, which a template keeps; see `truth.expected_template`.
    noise : int or None
        Seed of the noise; None for none.

    Returns
    -------
    Exposed
        Sources on a sloping background of some 100 electrons/s, photon and read noise; the collateral pixels hold read
        noise alone.
    """
    rows, columns = np.indices((SCIENCE.y1 - SCIENCE.y0, SCIENCE.x1 - SCIENCE.x0), sparse=True)
    expected = expected_template(sources, TANSIP, SCIENCE, sigma_psf, units="electrons", star=star)
    expected += 100 + 0.004 * columns - 0.002 * rows
    image, variance = np.zeros(SHAPE), np.full(SHAPE, READS * READ_NOISE**2 / EXPOSURE**2)
    science = np.s_[SCIENCE.y0 : SCIENCE.y1, SCIENCE.x0 : SCIENCE.x1]
    image[science] += expected
    variance[science] += expected / EXPOSURE
    uncertainty = np.sqrt(variance)
    if noise is not None:
        image += uncertainty * np.random.default_rng([noise, 20, 3, 3]).standard_normal(SHAPE)
    return Exposed(image.astype(np.float32), uncertainty.astype(np.float32))


def header_cards(kind: str) -> fits.Header:
    """Header of an image extension; kind is cal or uncert."""
    cards = [
        ("INHERIT", True, "inherit the primary header"),
        ("EXTNAME", f"CAMERA.CCD 3.3 {kind}", "name of extension"),
        ("EXTVER", 1, "extension version number (not format version)"),
        ("SIMDATA", True, "file is based on simulated data"),
        ("TELESCOP", "TESS", "telescope"),
        ("INSTRUME", "TESS Photometer", "detector type"),
        ("CAMERA", 3, "Camera number"),
        ("CCD", 3, "CCD chip number"),
        ("EXPOSURE", EXPOSURE / 86400, "[d] time on source"),
        ("TIMESYS", "TDB", "time system is Barycentric Dynamical Time (TDB)"),
        ("BJDREFI", 2457000, "integer part of BTJD reference date"),
        ("BJDREFF", 0.0, "fraction of the day in BTJD reference date"),
        ("TIMEUNIT", "d", "time unit for TIME, TSTART and TSTOP"),
        ("TELAPSE", 0.020833, "[d] TSTOP - TSTART"),
        ("TSTART", 1868.085902, "observation start time in BTJD"),
        ("TSTOP", 1868.106735, "observation stop time in BTJD"),
        ("DATE-OBS", "2020-01-19T13:58:14.000Z", "TSTART as UTC calendar date"),
        ("DATE-END", "2020-01-19T14:28:14.000Z", "TSTOP as UTC calendar date"),
        ("BTC_PIX1", 1068.0, "reference col for barycentric time correction"),
        ("BTC_PIX2", 1024.0, "reference row for barycentric time correction"),
        ("BUNIT", "electrons/s", "physical units of image data"),
        ("BARYCORR", 2.5e-3, "[d] barycentric time correction"),
        ("NUM_FRM", 900, "number of frames per time stamp"),
        ("NREADOUT", READS, "number of read per cadence"),
        ("BACKAPP", False, "background is subtracted"),
        ("GAINA", 5.27, "[electrons/count] CCD output A gain"),
        ("READNOIA", READ_NOISE, "[electrons] read noise CCD output A"),
        ("SCCSA", 45, "science col start, output A"),
        ("SCCED", 2092, "science col end (inclusive), output D"),
        ("SCIROWS", 1, "science rows start"),
        ("SCIROWE", 2048, "science rows end (inclusive)"),
        *tansip_keywords(TANSIP).items(),
        *inverse_polynomials(TANSIP).items(),
        ("DQUALITY", 0, "data quality flags"),
        ("IMAGTYPE", kind, "FFI image type: raw, cal, uncert"),
    ]
    # Real headers leave these two to their defaults.
    return fits.Header([fits.Card(*card) for card in cards if card[0] not in ("LONPOLE", "LATPOLE")])


def write_frame(path, frame: Exposed) -> None:
    """Write an FFI: primary without data, calibrated image, uncertainty.

    Parameters
    ----------
    path : path-like
        Overwritten. SECTOR is in no header, so keep the name to the form of `NAME`.
    frame : Exposed
        The pixels.
    """
    primary = fits.PrimaryHDU()
    for keyword, value in {"ORIGIN": "syndiff_tasks.demo", "TELESCOP": "TESS", "CAMERA": 3, "CCD": 3}.items():
        primary.header[keyword] = value
    images = [fits.ImageHDU(pixels, header_cards(kind)) for pixels, kind in zip(frame, ("cal", "uncert"), strict=True)]
    fits.HDUList([primary, *images]).writeto(Path(path), overwrite=True, checksum=True)
