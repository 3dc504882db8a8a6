"""Sentences on what a user of a template should know: missing bands, flagged pixels, a poor difference image."""

import math

import numpy as np

from syndiff_tasks.pixels import photometry
from syndiff_tasks.pixels.kernel import middle_scale
from syndiff_tasks.pixels.mask import DQ

NAMED = 5


def bands_wanted(header):
    """Return the bands that have a weight in a template.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Primary header of the template; WEIGHT_R ... are read.

    Returns
    -------
    list of str
        For example ["r", "i", "z", "y"], which is also what a header without weights gives.
    """
    wanted = [key[7:].lower() for key in header if key.startswith("WEIGHT_") and header[key]]
    return wanted or list("rizy")


def bands_of_skycells(skycells):
    """Return the bands that each skycell has.

    Parameters
    ----------
    skycells : astropy.table.Table
        The SKYCELLS table of a template.

    Returns
    -------
    dict of str to (str or None)
        Name of a skycell to its bands, for example "rizy"; None where the table has no column BANDS.
    """
    if "NAME" not in skycells.colnames:
        return {}
    names = [str(name).strip() for name in skycells["NAME"]]
    if "BANDS" not in skycells.colnames:
        return dict.fromkeys(names)
    return dict(zip(names, (str(bands).strip() for bands in skycells["BANDS"]), strict=True))


def caveats(template, preview, unit="electrons/s"):
    """Return what a user of the template should know, in sentences.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        FFI and difference.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    list of str
        Sentences, none where all is well.
    """
    return _on_settings(template) + _on_bands(template) + _on_pixels(template) + _on_difference(template, preview, unit)


def _first_few(names):
    """Name the first few of many."""
    named = ", ".join(names[:NAMED])
    return named if len(names) <= NAMED else f"{named} and {len(names) - NAMED} more"


def _on_settings(template):
    """Warn of settings that cost light."""
    header = template.header
    if header.get("IGNPIX") == "exclude" and "12" in str(header.get("IGNBITS", "")).split(","):
        return ["Bright stars lack their cores: ignored_pixels = exclude blanks pixels with bit 12 (STARCORE)."]
    return []


def _on_bands(template):
    """Warn of skycells that lack some or all bands."""
    known = {name: bands for name, bands in bands_of_skycells(template.skycells).items() if bands is not None}
    empty = [name for name, bands in known.items() if not bands]
    sentences = []
    if empty:
        sentences.append(f"Pan-STARRS1 has no image of {len(empty)} of {len(known)} skycells: {_first_few(empty)}.")
    for band in bands_wanted(template.header):
        lacking = [name for name, bands in known.items() if bands and band not in bands]
        if lacking:
            verb = "lacks" if len(lacking) == 1 else "lack"
            sentences.append(
                f"{len(lacking)} of {len(known)} skycells {verb} the {band} band: {_first_few(lacking)}. "
                "The other bands replace it, so that the flux of a source is off by a few per cent, depending on its "
                "color."
            )
    return sentences


def _on_pixels(template):
    """Warn of pixels that cannot be trusted."""
    science = (template.dq & int(DQ.COLLATERAL)) == 0
    total = max(1, np.count_nonzero(science))
    sentences = []
    for bit, words in (
        (DQ.NO_PS1, "have no Pan-STARRS1 data"),
        (DQ.LOW_COVERAGE, "have too little Pan-STARRS1 data and are NaN"),
        (DQ.SAT_PS1, "are affected by a bright star that is saturated or blank in Pan-STARRS1: their flux is too low"),
        (DQ.STAR_REPAIRED, "are affected by a repaired star: their flux is accurate to a few per cent only"),
        (DQ.PS1_GAP, "are affected by blank Pan-STARRS1 pixels: their flux is uncertain where the sky has structure"),
    ):
        pixels = np.count_nonzero(science & ((template.dq & int(bit)) != 0))
        if pixels:
            sentences.append(f"{pixels:,} of {total:,} pixels ({100 * pixels / total:.2g} %) {words}.")
    return sentences


def _on_difference(template, preview, unit):
    """Warn of a difference image that shows a problem."""
    if preview.result is None:
        return [f"There is no difference image: {preview.reason}."]
    result = preview.result
    sentences = []
    expected = 10 ** (-0.4 * (template.zero_point - photometry.TESS_ZERO_POINT_AB))
    relative = middle_scale(result.kernel) / expected
    if unit == "electrons/s" and math.isfinite(expected) and abs(relative - 1) > 0.2:
        sentences.append(
            f"The FFI is {relative:.2f} times as bright as the template's zero point predicts: check that "
            "both show the same field in the same units."
        )
    if result.mismatch > 0.05:
        sentences.append(
            f"Stars are subtracted to {100 * result.mismatch:.0f} % of their brightness only: use psf = prf, or a "
            "smaller psf_sigma with oversampling = 2."
        )
    if result.excess > 1.5:
        sentences.append(
            f"Empty sky scatters {result.excess:.1f} times as much as the uncertainties predict: scattered light has "
            "structure that the meshes of the sky do not follow, or the uncertainties are too small."
        )
    return sentences
