"""The picture of a difference image: FFI, convolved template, difference, flags."""

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from syndiff_tasks.pixels.difference import FLAG_MEANING, Flag
from syndiff_tasks.report.caption import caption
from syndiff_tasks.report.downscale import block_side, most_serious_flag
from syndiff_tasks.report.figure import FRAME, INK, QUIET
from syndiff_tasks.report.picture import (
    draw_difference,
    draw_matched,
    new_panels,
    panel_height,
    show_image,
    write_title,
)

# Most serious first. Colors of Okabe & Ito (2008), which color-blind readers can tell apart.
COLORS = {
    Flag.NO_DATA: "#000000",
    Flag.EDGE_OF_KERNEL: "#bdbdbd",
    Flag.BLEED: "#7a4b00",
    Flag.SATURATED_TESS: "#d55e00",
    Flag.TEMPLATE_UNTRUSTED: "#cc79a7",
    Flag.NEAR_DAMAGE: "#e69f00",
    Flag.TEMPLATE_GAP: "#009e73",
    Flag.SCATTERED: "#f0e442",
    Flag.STRAP: "#56b4e9",
}


def draw(template, preview, unit="electrons/s"):
    """Draw the picture of a difference image.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        A preview with a difference.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows of two panels; `syndiff_tasks.report.figure.save` writes it.
    """
    flags = preview.result.flags
    counts = {bit: int(np.count_nonzero(flags & bit.value)) for bit in COLORS}
    present = [bit for bit, pixels in counts.items() if pixels]
    figure, panels = new_panels(flags.shape, len(present), 2)
    side = block_side(flags.shape)
    draw_matched(panels[:2], template, preview, unit, side)
    draw_difference(panels[2], template, preview, side)
    axes = panels[3]
    colors = ListedColormap(list(COLORS.values()))
    norm = BoundaryNorm(np.arange(len(COLORS) + 1) - 0.5, len(COLORS))
    index = most_serious_flag(flags, side, tuple(bit.value for bit in COLORS))
    show_image(axes, index, template.region, side, cmap=colors, norm=norm)
    axes.set_facecolor("white")
    write_title(axes, "Flags", "most serious flag of each pixel; white: no flag")
    legend = [
        Patch(facecolor=COLORS[bit], edgecolor=FRAME, label=f"{FLAG_MEANING[bit]} ({counts[bit]:,} px)")
        for bit in present
    ]
    if legend:
        axes.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(0, -0.5 / panel_height(axes)),
            **{"borderpad": 0, "borderaxespad": 0, "fontsize": 8, "frameon": False},
            **{"labelcolor": INK, "handlelength": 1, "handleheight": 1},
        )
    line = caption(template, str(template.header.get("FFI", template.path.name)))
    parts = line.split("   ·   ")
    lines = "\n".join("   ·   ".join(some) for some in (parts[:3], parts[3:]))
    figure.text(0.7 / figure.get_figwidth(), 0.15 / figure.get_figheight(), lines, fontsize=9, color=QUIET)
    return figure
