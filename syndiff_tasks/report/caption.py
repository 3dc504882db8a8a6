"""The line that identifies a template on its picture and page."""

import math

from astropy.time import Time


def observation_time(header):
    """Return the start of the FFI's exposure as people write it.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Primary header of a template; MJD-OBS is read.

    Returns
    -------
    str
        For example "2020-01-19 14:03 UTC"; empty where the header has no MJD-OBS.
    """
    mjd = header.get("MJD-OBS")
    if not isinstance(mjd, (int, float)) or not math.isfinite(mjd):
        return ""
    return Time(mjd, format="mjd", scale="utc").strftime("%Y-%m-%d %H:%M UTC")


def caption(template, ffi_name):
    """Return the line that identifies a template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    ffi_name : str
        Name of the FFI.

    Returns
    -------
    str
        FFI, start of the exposure, region, offset, number of skycells, PSF and target, as far as they are known.
    """
    header, (x0, y0, x1, y1) = template.header, template.region
    parts = [
        ffi_name,
        observation_time(header),
        f"pixels x {x0}–{x1 - 1}, y {y0}–{y1 - 1}",
        f"offset ({header.get('DX_SHIFT', 0):+.4g}, {header.get('DY_SHIFT', 0):+.4g}) px",
        f"{len(template.skycells)} skycells",
    ]
    if isinstance(header.get("PSFSIGMA"), (int, float)):
        parts.append(f"PSF sigma {header['PSFSIGMA']:g} PS1 px")
    elif "PSF" in header:
        parts.append(f"PSF {header['PSF']}")
    if template.target is not None:
        parts.append("target at RA {:.5f}, Dec {:+.5f}".format(*template.target))
    return "   ·   ".join(part for part in parts if part)
