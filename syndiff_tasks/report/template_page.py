"""The page of a template: a self-contained HTML file, its pictures inside, without scripts or external links."""

from pathlib import Path

import numpy as np

from syndiff_tasks.pixels.kernel import middle_scale
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report.caption import caption
from syndiff_tasks.report.caveats import bands_of_skycells, bands_wanted, caveats
from syndiff_tasks.report.coverage_histogram import draw_coverage
from syndiff_tasks.report.difference import THRESHOLD
from syndiff_tasks.report.figure import png
from syndiff_tasks.report.flags import FLAGS
from syndiff_tasks.report.footprint_drawing import draw_footprint
from syndiff_tasks.report.html import data_uri, render

LISTED = 50  # detections
STRUCTURAL = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND")


def template_page(template, preview, picture, ffi_name, manifest=None, unit="electrons/s"):
    """Return the page of a template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        FFI and difference on its pixels.
    picture : bytes
        Content of the PNG file that `syndiff_tasks.report.picture` drew of it.
    ffi_name : str
        Name of the FFI.
    manifest : Mapping, optional
        How the product was made: "settings", "made", "host", "syndiff_tasks", and in "notes" a mapping "seconds" from
        step to duration.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    str
        HTML.
    """
    manifest = manifest or {}
    return render(
        "template.html",
        title=_title(template.header, ffi_name),
        caption=caption(template, ffi_name),
        file_name=template.path.name,
        facts=_facts(template, preview),
        caveats=caveats(template, preview, unit),
        picture=data_uri(picture),
        footprint=data_uri(png(draw_footprint(template))),
        coverage=data_uri(png(draw_coverage(template))),
        detections=preview.detections[:LISTED] if preview.result is not None else None,
        more=max(0, len(preview.detections) - LISTED) if preview.result is not None else 0,
        reason=preview.reason,
        threshold=THRESHOLD,
        unit=unit,
        flags=[(flag, int(flag.bit), np.count_nonzero(template.dq & int(flag.bit))) for flag in FLAGS],
        bands=", ".join(bands_wanted(template.header)),
        skycells=_skycells(template),
        band_missing=np.count_nonzero(template.dq & int(DQ.BAND_MISSING)),
        settings=sorted(manifest.get("settings", {}).items()),
        cards=[card for card in template.header.cards if card.keyword and card.keyword not in STRUCTURAL],
        made=[
            (label, manifest[key])
            for key, label in (("made", "date"), ("host", "host"), ("syndiff_tasks", "version of syndiff_tasks"))
            if manifest.get(key)
        ],
        seconds=manifest.get("notes", {}).get("seconds", {}).items(),
    )


def write(path, template, preview, picture, manifest=None, unit="electrons/s"):
    """Write the page of a template.

    Parameters
    ----------
    path : str or Path
        Destination; the caller sees to it that the file appears whole or not at all.
    template, preview, picture, manifest, unit
        As in `template_page`; the header of the template names the FFI.
    """
    ffi_name = str(template.header.get("FFI", template.path.name))
    page = template_page(template, preview, picture, ffi_name, manifest, unit)
    Path(path).write_text(page, encoding="utf-8")


def _title(header, ffi_name):
    """Return the template's place in the survey, or the name of its FFI."""
    if all(keyword in header for keyword in ("SECTOR", "CAMERA", "CCD")):
        return f"Template of sector {header['SECTOR']}, camera {header['CAMERA']}, CCD {header['CCD']}"
    return f"Template of {ffi_name}"


def _facts(template, preview):
    """Return the few numbers that matter first, each with its label."""
    science = (template.dq & int(DQ.COLLATERAL)) == 0
    total = max(1, np.count_nonzero(science))
    coverage = template.coverage[science & np.isfinite(template.coverage)]
    names = bands_of_skycells(template.skycells)
    facts = [
        ("skycells", f"{len(template.skycells):,}"),
        ("projections", f"{len({name.split('.')[1] for name in names if name.count('.') == 2})}"),
        ("mean coverage", f"{100 * coverage.mean():.2f} %" if coverage.size else "none"),
        ("pixels without a flag", f"{100 * np.count_nonzero(template.dq[science] == 0) / total:.1f} %"),
    ]
    if preview.result is not None:
        facts += [
            ("scale to the FFI", f"{middle_scale(preview.result.kernel):.5g}"),
            ("PSF mismatch", f"{100 * preview.result.mismatch:.1f} %"),
            (f"detections ≥ {THRESHOLD:g} sigma", f"{len(preview.detections)}"),
        ]
    return facts


def _skycells(template):
    """Return a row for each skycell: name, bands, missing bands (None where unknown), and pixels that it fills."""
    wanted, bands_of = bands_wanted(template.header), bands_of_skycells(template.skycells)
    known = "PIXELS" in template.skycells.colnames
    pixels = [f"{count:,}" for count in template.skycells["PIXELS"]] if known else [""] * len(bands_of)
    rows = []
    for (name, bands), filled in zip(bands_of.items(), pixels, strict=True):
        missing = None if bands is None else ", ".join(band for band in wanted if band not in bands)
        rows.append({"name": name, "bands": bands or "", "missing": missing, "pixels": filled})
    return rows
