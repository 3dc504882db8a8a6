"""The page of a difference image: a self-contained HTML file, its picture inside."""

from pathlib import Path

import numpy as np
from astropy.io import fits

from syndiff_tasks.pixels.difference import FLAG_MEANING
from syndiff_tasks.pixels.kernel import middle_scale
from syndiff_tasks.report.caption import caption
from syndiff_tasks.report.caveats import caveats
from syndiff_tasks.report.difference import THRESHOLD
from syndiff_tasks.report.difference_picture import COLORS
from syndiff_tasks.report.html import data_uri, render
from syndiff_tasks.report.template_page import LISTED, STRUCTURAL


def write(path, difference_path, template, preview, picture, manifest, unit="electrons/s"):
    """Write the page of a difference image.

    Parameters
    ----------
    path : str or Path
        Destination; the caller sees to it that the file appears whole or not at all.
    difference_path : str or Path
        The difference file.
    template : syndiff_tasks.report.product.Template
        What was subtracted.
    preview : syndiff_tasks.report.difference.DifferencePreview
        A preview with a difference.
    picture : bytes
        Content of the PNG file that `syndiff_tasks.report.difference_picture` drew of it.
    manifest : Mapping
        How the product was made.
    unit : str, default "electrons/s"
        Unit of the FFI.
    """
    result, header = preview.result, fits.getheader(difference_path)
    counts = {bit: np.count_nonzero(result.flags & bit.value) for bit in COLORS}
    page = render(
        "difference.html",
        title=f"Difference image of {header['FFI']}",
        caption=caption(template, str(header["FFI"])),
        file_name=Path(difference_path).name,
        template_name=template.path.name,
        facts=[
            ("scale to the FFI", f"{middle_scale(result.kernel):.5g}"),
            ("taps of the kernel", f"{result.kernel.basis.size} x {result.kernel.basis.size}"),
            ("PSF mismatch", f"{100 * result.mismatch:.1f} %"),
            ("scatter over noise", f"{result.excess:.2f}"),
            (f"scatter [{unit}]", f"{result.empty:.3g}"),
            ("straps", f"{len(result.straps.columns)}"),
            (f"detections ≥ {THRESHOLD:g} sigma", f"{len(preview.detections)}"),
        ],
        caveats=caveats(template, preview, unit),
        picture=data_uri(picture),
        detections=preview.detections[:LISTED],
        more=max(0, len(preview.detections) - LISTED),
        threshold=THRESHOLD,
        unit=unit,
        flags=[(bit, COLORS[bit], FLAG_MEANING[bit], counts[bit]) for bit in COLORS],
        settings=sorted(manifest.get("settings", {}).items()),
        cards=[card for card in header.cards if card.keyword and card.keyword not in STRUCTURAL],
        made=[
            (label, manifest[key])
            for key, label in (("made", "date"), ("host", "host"), ("syndiff_tasks", "version of syndiff_tasks"))
            if manifest.get(key)
        ],
    )
    Path(path).write_text(page, encoding="utf-8")
