"""How many science pixels of a template have which coverage."""

import numpy as np

from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report.figure import INK, QUIET, new_figure, style_axes


def draw_coverage(template):
    """Draw the histogram of the coverage of the science pixels.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.

    Returns
    -------
    matplotlib.figure.Figure
        40 bins from 0 to 1; the number of pixels on a logarithmic scale.
    """
    figure = new_figure(5.6, 5.2, dpi=110)
    axes = figure.add_axes((0.13, 0.1, 0.84, 0.83))
    style_axes(axes)
    values = template.coverage[((template.dq & int(DQ.COLLATERAL)) == 0) & np.isfinite(template.coverage)]
    axes.set_title("Coverage of the science pixels", loc="left", fontsize=10.5, color=INK)
    if not values.size:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=QUIET)
        return figure
    axes.hist(np.clip(values, 0, 1), bins=np.linspace(0, 1, 41), color="#3b6fa0", log=True)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0.7)
    axes.set_xlabel("coverage: fraction of the PSF-weighted area with Pan-STARRS1 data", fontsize=8.5, color=QUIET)
    axes.set_ylabel("number of pixels", fontsize=8.5, color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
