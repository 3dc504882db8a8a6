"""The file of a template: planes, header cards, and tables of its skycells and repaired stars."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.time import Time

from syndiff_tasks import __version__
from syndiff_tasks.geometry import footprint as footprints
from syndiff_tasks.geometry.ffi import parse_ffi_name
from syndiff_tasks.geometry.sip_inverse import inverse_keywords
from syndiff_tasks.geometry.tansip import shifted, tansip_keywords
from syndiff_tasks.io import products
from syndiff_tasks.pixels import mask, photometry, template

from . import stack_files, star_catalog


def write_template(path, sampled, frame, plan, offset, settings, groups):
    """Write a template file.

    Parameters
    ----------
    path : str
        Where to.
    sampled : template.Sampled
        Counts/s, as `integrate` gives them.
    frame : downsample.PixelGrid
    plan : Plan
    offset : (float, float)
        [TESS px]
    settings : TemplateSettings
        The settings that a template's file records.
    groups : dict of str to targets.WholeTarget
        The convolved skycells; their manifests record their inputs.

    Returns
    -------
    covered : float
        Fraction of the pixels that see sky with a flux.

    Raises
    ------
    EmptyTemplate
        If no pixel has a flux.
    """
    factor = 10 ** (-0.4 * (photometry.PS1_ZERO_POINT - photometry.UNITS[settings.units].zero_point))
    judged = template.apply_quality_flags(sampled, frame.science, frame.seam, settings.min_coverage)
    fine = tuple(settings.oversampling * value for value in offset)
    planes = {
        "FLUX_SUM": judged.flux * np.float32(factor),
        "VARIANCE": judged.variance * np.float32(factor**2),
        "COVERAGE": judged.coverage,
        "COUNT": judged.count,
        "MASKED": judged.masked,
        "DQ": judged.dq,
    }
    tables = {
        "SKYCELLS": skycells_table(plan, groups, settings.convolved["weights"]),
        "STARS": stars_table(plan, groups),
    }
    tansip = shifted(frame.tansip, *fine)
    star_catalog.flag_moved(judged.dq, tables["STARS"], tansip, settings.oversampling)
    wcs_cards = tansip_keywords(tansip) | inverse_keywords(tansip, frame.owner.shape)
    unit, zero_point = photometry.UNITS[settings.units]
    covered = float(np.isfinite(judged.flux[frame.science]).mean())
    if not covered:
        raise EmptyTemplate(f"{plan.path}: no pixel of the template has data; {_reasons(tables['SKYCELLS'])}")
    products.write_template(
        path,
        _provenance(plan, offset, settings) | {"COVERED": (covered, "fraction of science pixels with a flux")},
        planes,
        wcs_cards,
        tables,
        unit=unit,
        zero_point=zero_point,
        dq_bits={bit.name: (bit.value, mask.DQ_MEANING[bit]) for bit in mask.DQ},
    )
    return covered


def _reasons(skycells):
    """Describe where the data of a template's skycells are."""
    bare = int((skycells["BANDS"] == "").sum())
    return (
        f"{bare} of its {len(skycells)} skycells have no whole band in the archive, the others no good pixel here: look"
        " at their files with `syndiff_tasks explain`, or choose another region with --roi or --target"
    )


class EmptyTemplate(ValueError):
    """No pixel of a template has data."""


class SparseTemplate(UserWarning):
    """Fewer than `LITTLE` of the pixels of a template have data."""


LITTLE = 0.5


def sparse(path, covered):
    """Return a `SparseTemplate` that names a template with little data, None where it has enough."""
    if covered >= LITTLE:
        return None
    return SparseTemplate(
        f"{path}: only {100 * covered:.1f} % of the pixels have data (COVERED in its header); its table SKYCELLS and "
        "DQ tell which skycells lack bands"
    )


class TemplateSettings(NamedTuple):
    """The settings that a template's file records; `convolved` holds those of its convolved skycells."""

    units: str
    oversampling: int
    min_coverage: float
    convolved: dict
    reference: str


def own_settings(settings):
    """Return the settings that shape a template in addition to those of its convolved skycells, for manifests."""
    return {name: getattr(settings, name) for name in ("units", "oversampling", "min_coverage")}


def _provenance(plan, offset, settings):
    convolved = settings.convolved
    weights = convolved["weights"]
    return {
        "ORIGIN": ("syndiff_tasks", "deep PS1 sky in the TESS band"),
        "SYNDIFF": (True, "a template, not an observation"),
        "VERSION": (__version__, "of syndiff_tasks"),
        "TELESCOP": ("TESS", "defines the pixels"),
        "SURVEY": ("PS1 3pi, rings.v3 stacks", "source of the sky"),
        "FFI": (plan.ccd.stem, "defines the pixels"),
        "REFFFI": (parse_ffi_name(settings.reference or plan.path).stem, "source of the skycells"),
        "SECTOR": (plan.ccd.sector, "TESS sector, from the file name"),
        "CAMERA": (plan.ccd.camera, "TESS camera"),
        "CCD": (plan.ccd.ccd, "TESS CCD"),
        **_time_cards(plan.mjd, plan.mjd_end),
        **_target_cards(plan.target),
        "DX_SHIFT": (offset[0], "[TESS px] stars are moved to larger x by this"),
        "DY_SHIFT": (offset[1], "[TESS px] stars are moved to larger y by this"),
        "ROI": (",".join(map(str, plan.region)), "x0,y0,x1,y1 of the FFI, half-open, from 0"),
        "OVERSAMP": (settings.oversampling, "template pixels along one TESS pixel"),
        "NSKYCELL": (len(plan.skycells), "PS1 skycells that own pixels here"),
        "SKYCAT": (plan.skycell_catalog, "rings.v3, or digest of a catalog"),
        "PSF": (convolved["psf"], "gauss, prf or none"),
        "PSFSIGMA": (convolved.get("psf_sigma", ""), "[PS1 px] sigma of the Gaussian"),
        "PRFFILES": (convolved.get("prf_files", ""), "digest of the PRF files"),
        **{f"WEIGHT_{band.upper()}": (value, f"weight of PS1 {band}") for band, value in weights.items()},
        "BACKGRND": (convolved["background"], "what was done with the sky"),
        "BINNING": (convolved["bin"], "[PS1 px] side of a block"),
        "REJBITS": (",".join(map(str, convolved["reject_mask_bits"])), "PS1 mask bits that blank a pixel of a band"),
        "IGNBITS": (",".join(map(str, convolved["ignore_mask_bits"])), "PS1 mask bits that set IGNORED_BIT"),
        "IGNPIX": (convolved["ignored_pixels"], "flag or exclude: what happened to such pixels"),
        "SUSBITS": (",".join(map(str, convolved["suspect_mask_bits"])), "PS1 mask bits that set SUSPECT_PS1"),
        "MINCOV": (settings.min_coverage, "below this coverage FLUX_SUM is NaN"),
    }


def _time_cards(begin, end):
    """Return the header cards of the FFI's exposure, MJD [d] in UTC; NaN where its header has no time."""
    cards = {
        "TIMESYS": ("UTC", "time scale of the dates, at the spacecraft"),
        "MJD-OBS": (begin, "[d] start of the FFI"),
    }
    for keyword, mjd, meaning in (("DATE-OBS", begin, "start of the FFI"), ("DATE-END", end, "end of the FFI")):
        if math.isfinite(mjd):
            cards[keyword] = (Time(mjd, format="mjd", scale="utc").isot, meaning)
    return cards


def _target_cards(target):
    """Return the header cards of the target around which a region was chosen, none for a region or a whole FFI."""
    if target is None:
        return {}
    return {
        "RA_TARG": (target[0], "[deg] target at the center of the region"),
        "DEC_TARG": (target[1], "[deg] target at the center of the region"),
    }


_SKYCELL_COLUMNS = {
    "NAME": ("", "PS1 skycell"),
    "PROJECTION": ("", "PS1 projection cell"),
    "BANDS": ("", "PS1 bands with image, variance and mask"),
    "PIXELS": ("pixel", "TESS pixels that the skycell owns here"),
}
_PLACES = {"CENTRE": "center", **{f"CORNER{n}": f"corner {n} of the image" for n in (1, 2, 3, 4)}}
_STAR_COLUMNS = {
    "SOURCE_ID": ("", "identifier in the star catalog"),
    "RA": ("deg", "RA in the skycell, ICRS"),
    "DEC": ("deg", "DEC in the skycell, ICRS"),
    "TMAG": ("mag", "TESS magnitude"),
    "FLUX": ("count/s", "flux added to lost pixels, or subtracted (negative)"),
    "TOTAL": ("count/s", "flux of the whole star"),
    "HOW": ("", "psf or catalog: source of the added flux; removed"),
    "SKYCELL": ("", "PS1 skycell on which the star was repaired"),
    "PM": ("mas/yr", "proper motion; NaN if the catalog has none"),
    "MOVED": ("pixel", "motion from 2012.0 (PS1) to the FFI, in TESS pixels"),
}


def _annotated(table, columns):
    """Attach the units and meanings of the columns to a table, for `products.write_template`."""
    table.attrs["units"] = {name: unit for name, (unit, _) in columns.items() if unit}
    table.attrs["meanings"] = {name: meaning for name, (_, meaning) in columns.items()}
    return table


def skycells_table(plan, groups, bands_wanted):
    """Return the SKYCELLS table of a template: the inputs of each skycell, and the pixels that it owns."""
    given = np.bincount(plan.footprint.owner[plan.footprint.owner >= 0], minlength=len(plan.skycells))
    table = pd.DataFrame(
        [
            _skycell_row(skycell, groups[skycell.name].manifest()["notes"], bands_wanted) | {"PIXELS": int(pixels)}
            for skycell, pixels in zip(plan.skycells, given, strict=True)
        ]
    )
    columns = {name: _SKYCELL_COLUMNS[name] for name in ("NAME", "PROJECTION", "BANDS", "PIXELS")}
    for place, meaning in _PLACES.items():
        columns |= {f"{axis}_{place}": ("deg", f"{axis} of the {meaning}, ICRS") for axis in ("RA", "DEC")}
    for band in bands_wanted:
        columns |= {
            f"EXPTIME_{band}": ("s", f"exposure time of the {band} stack; NaN if missing"),
            f"ZEROPT_{band}": ("mag", f"AB magnitude of 1 count/s of the {band} stack; NaN if missing"),
        }
        columns |= {
            f"SHA256_{band}_{kind}": ("", f"SHA-256 of the {band} {kind} file; empty if missing")
            for kind in stack_files.KINDS
        }
    return _annotated(table, columns)


def _skycell_row(skycell, notes, bands_wanted):
    files, numbers = notes["files"], notes["keywords"]
    have = [band for band in bands_wanted if all(f"{band}_{kind}" in files for kind in stack_files.KINDS)]
    row = {"NAME": skycell.name, "PROJECTION": skycell.projection, "BANDS": "".join(have)}
    ra, dec = footprints.corners(skycell)
    for place, one_ra, one_dec in zip(_PLACES, ra, dec, strict=True):
        row |= {f"RA_{place}": float(one_ra), f"DEC_{place}": float(one_dec)}
    for band in bands_wanted:
        of_band = numbers.get(f"{band}_image", {})
        row |= {f"EXPTIME_{band}": float(of_band.get("EXPTIME", math.nan))}
        row |= {f"ZEROPT_{band}": float(of_band.get("FPA.ZP", photometry.PS1_ZERO_POINT)) if of_band else math.nan}
        row |= {
            f"SHA256_{band}_{kind}": files.get(f"{band}_{kind}", {}).get("sha256", "") for kind in stack_files.KINDS
        }
    return row


def seconds_of(groups):
    """Return the total time of each step over a template's skycells [s]."""
    spent = {}
    for group in groups.values():
        for step, seconds in group.manifest()["notes"].get("seconds", {}).items():
            spent[f"{step}, all skycells"] = spent.get(f"{step}, all skycells", 0.0) + seconds
    return spent


def stars_table(plan, groups):
    """Return the STARS table of a template: what was repaired or removed on it."""
    rows = [row for group in groups.values() for row in group.manifest()["notes"]["stars"]]
    return _annotated(star_catalog.on_template(plan, rows), _STAR_COLUMNS)
