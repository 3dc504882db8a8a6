"""What a template says about the known stars of the demo sky."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from syndiff_tasks.demo import frame
from syndiff_tasks.demo.truth import expected_template, pixel_positions
from syndiff_tasks.geometry.region import parse_region
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report.product import read_template

APERTURE = 2  # half width of the square that is summed about a star [TESS px]
STARS = 12  # shown at most

# Flags of pixels that cannot be held to the truth; a missing band costs colour, a blank pixel light.
NOT_JUDGED = DQ.NO_PS1 | DQ.LOW_COVERAGE | DQ.SAT_PS1 | DQ.BAND_MISSING | DQ.COLLATERAL
FULL = 0.9999  # least coverage of a pixel that is judged


class Verdict(NamedTuple):
    """A template beside the truth.

    Attributes
    ----------
    stars : pandas.DataFrame
        Of the brightest stars whose pixels all are judged: x, y [FFI px], tess_mag, truth and template (flux in the
        aperture [counts/s]), ratio, and whether the star was repaired.
    worst_pixel, total : float
        Largest difference over judged pixels as a fraction of the brightest, and ratio of the sums over them.
    """

    stars: pd.DataFrame
    worst_pixel: float
    total: float


def judge(folder, template_path) -> Verdict:
    """Compare a template with what a perfect pipeline would make of the demo sky.

    Parameters
    ----------
    folder : path-like
        The demo sky.
    template_path : path-like
        A template of its region, in PS1-weighted counts/s, without oversampling.

    Returns
    -------
    Verdict
    """
    made = json.loads((Path(folder) / "demo.json").read_text(encoding="utf-8"))
    sources = pd.read_csv(Path(folder) / made["stars"])
    region, template = parse_region(made["roi"]), read_template(template_path)
    truth = expected_template(sources, frame.TANSIP, region, made["psf_sigma"])
    good = ((template.dq & NOT_JUDGED.value) == 0) & (template.coverage > FULL)
    off = np.where(good, template.flux - truth, 0.0)
    stars = _bright_stars(sources, region, template, truth, good)
    return Verdict(
        stars,
        float(np.abs(off).max() / truth[good].max()),
        float(template.flux[good].sum() / truth[good].sum()),
    )


def _bright_stars(sources, region, template, truth, good):
    x, y = pixel_positions(frame.TANSIP, sources["ra"].to_numpy(), sources["dec"].to_numpy())
    rows = []
    for index in np.argsort(sources["tess_mag"].to_numpy())[:200]:
        column, row = round(x[index]) - region.x0, round(y[index]) - region.y0
        box = (slice(row - APERTURE, row + APERTURE + 1), slice(column - APERTURE, column + APERTURE + 1))
        inside = APERTURE <= column < truth.shape[1] - APERTURE and APERTURE <= row < truth.shape[0] - APERTURE
        if inside and good[box].all() and len(rows) < STARS:
            rows.append(
                {
                    "x": x[index],
                    "y": y[index],
                    "tess_mag": sources["tess_mag"].iloc[index],
                    "truth": truth[box].sum(),
                    "template": template.flux[box].sum(),
                    "repaired": bool(template.dq[row, column] & DQ.STAR_REPAIRED),
                }
            )
    stars = pd.DataFrame(rows, columns=["x", "y", "tess_mag", "truth", "template", "repaired"])
    return stars.assign(ratio=stars["template"] / stars["truth"])
