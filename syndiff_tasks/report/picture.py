"""A picture of a template: FFI, template, difference, coverage and flags, readable without explanation."""

import math
import textwrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm, BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report.difference import THRESHOLD, background_plane
from syndiff_tasks.report.product import blocks_of

INK, QUIET, BLANK, RING = "#222222", "#6b6b6b", "#dcdcdc", "#111111"
LONGEST_SIDE = 600
WIDTH = 16.6  # of the whole picture [inch]
MARKED = 8
CLOSE = 10  # px on each side of the strongest residual, in the closer look
# Rings of residuals beyond this many sigma are heavy: what is only just significant must not draw the eye first.
CLEAR = 10

# What a reader is told of a flagged pixel, the graver first: a pixel is drawn in the colour of its gravest flag.
# Colours of Okabe & Ito (2008), told apart by colour-blind eyes.
FLAGS = (
    (DQ.COLLATERAL, "outside the science pixels", "#bdbdbd"),
    (DQ.NO_PS1, "no Pan-STARRS1 data", "#000000"),
    (DQ.LOW_COVERAGE, "too little Pan-STARRS1 data", "#7a4b00"),
    (DQ.SAT_PS1, "saturated in Pan-STARRS1", "#d55e00"),
    (DQ.STAR_REPAIRED, "star repaired from elsewhere", "#cc79a7"),
    (DQ.IGNORED_BIT, "core of a bright star", "#e69f00"),
    (DQ.BAND_MISSING, "a band is missing", "#0072b2"),
    (DQ.PROJECTION_SEAM, "seam of two projections", "#56b4e9"),
)


def step_of(shape):
    """Side of the blocks that make an image small enough to draw.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    int
        [px]
    """
    return max(1, math.ceil(max(shape) / LONGEST_SIDE))


def _blocks(image, step, fill):
    """View an image as step x step blocks, the last ones filled up with `fill`: (ny, nx, step * step)."""
    ny, nx = image.shape
    return blocks_of(np.pad(image, ((0, -ny % step), (0, -nx % step)), constant_values=fill), step)


def block_mean(image, step):
    """Mean of the finite pixels of each block.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        May hold NaN.
    step : int
        Side of a block [px].

    Returns
    -------
    ndarray of float, shape (ceil(ny / step), ceil(nx / step))
        NaN where a block has no finite pixel.
    """
    if step == 1:
        return image
    blocks = _blocks(image, step, np.nan)
    finite = np.isfinite(blocks)
    count = finite.sum(axis=-1)
    total = np.where(finite, blocks, 0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan, dtype=image.dtype), where=count > 0)


def block_significance(difference, noise, step):
    """Difference of each block in units of its noise.

    Parameters
    ----------
    difference, noise : ndarray of float32, shape (ny, nx)
        NaN = none.
    step : int
        Side of a block [px].

    Returns
    -------
    ndarray of float32, shape (ceil(ny / step), ceil(nx / step))
        Sum of the block over the root of its summed variance; NaN where a block has no data.
    """
    mean, variance = block_mean(difference, step), block_mean(noise**2, step)
    if step == 1:
        return mean / np.sqrt(variance)
    return mean / np.sqrt(variance / np.isfinite(_blocks(difference, step, np.nan)).sum(axis=-1).clip(1))


def gravest_flag(dq, step):
    """Index into `FLAGS` of the gravest flag of each block, NaN where there is none.

    Parameters
    ----------
    dq : ndarray of int32, shape (ny, nx)
        Bits of `DQ`.
    step : int
        Side of a block [px]. A flag of a single pixel is seen: blocks are OR-ed.

    Returns
    -------
    ndarray of float32, shape (ceil(ny / step), ceil(nx / step))
        0, 1, ... or NaN.
    """
    bits = np.bitwise_or.reduce(_blocks(dq, step, 0), axis=-1)
    grave = np.full(bits.shape, np.nan, dtype=np.float32)
    for index in reversed(range(len(FLAGS))):
        grave[(bits & int(FLAGS[index][0])) != 0] = index
    return grave


def directions(tansip, x, y):
    """Find the directions of north and east in pixels.

    Parameters
    ----------
    tansip : TanSip
        The WCS.
    x, y : float
        Where [px].

    Returns
    -------
    north, east : ndarray of float64, shape (2,)
        (x, y) components of the direction in which declination, or right ascension, grows.
    """
    ra, dec = pixel_to_sky(tansip, np.array([x, x + 0.5, x, x - 0.5, x]), np.array([y, y, y + 0.5, y, y - 0.5]))
    along_ra = (np.asarray(ra)[1:] - ra[0] + 180) % 360 - 180
    along_ra = along_ra * math.cos(math.radians(float(dec[0])))
    along_dec = np.asarray(dec)[1:] - dec[0]
    jacobian = np.array(
        [
            [along_ra[0] - along_ra[2], along_ra[1] - along_ra[3]],
            [along_dec[0] - along_dec[2], along_dec[1] - along_dec[3]],
        ]
    )
    inverse = np.linalg.inv(jacobian)
    east, north = inverse[:, 0], inverse[:, 1]
    return north / np.linalg.norm(north), east / np.linalg.norm(east)


def _show(axes, image, region, step, **style):
    """Draw an image in FFI pixels, or say that there is nothing to draw."""
    ny, nx = image.shape
    extent = (region.x0 - 0.5, region.x0 + nx * step - 0.5, region.y0 - 0.5, region.y0 + ny * step - 0.5)
    shown = axes.imshow(image, origin="lower", extent=extent, interpolation="nearest", **style)
    axes.set_xlim(region.x0 - 0.5, region.x1 - 0.5)
    axes.set_ylim(region.y0 - 0.5, region.y1 - 0.5)
    axes.set_facecolor(BLANK)
    axes.set_anchor("NW")
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    axes.locator_params(nbins=6, integer=True)
    axes.ticklabel_format(useOffset=False, style="plain")
    for spine in axes.spines.values():
        spine.set_color("#b0b0b0")
    return shown


def _title(axes, title, subtitle):
    """Put a title in words and a line under it above a panel."""
    axes.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=8.5, color=QUIET, va="bottom")


def _say(axes, words):
    """Write a sentence into a panel that has nothing to show."""
    text = textwrap.fill(words, 42)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=QUIET)


def _bar(axes, shown, label, **style):
    """Hang a colour bar with its unit beside a panel, as high as the panel."""
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((1.025, 0, 0.03, 1)), **style)
    if isinstance(shown.norm, AsinhNorm):
        bar.set_ticks(_asinh_ticks(shown.norm), minor=False)
        bar.set_ticks([], minor=True)
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.set_label(label, fontsize=8.5, color=QUIET)
    bar.ax.tick_params(labelsize=8, colors=QUIET, length=2)
    bar.outline.set_visible(False)


def _asinh_ticks(norm):
    """Choose zero and powers of ten that are far enough apart on an asinh scale."""
    ticks = [0.0]
    for sign in (1, -1):
        last = 0.0
        for power in range(-6, 9):
            for value in (sign * 10.0**power, sign * 3 * 10.0**power):
                if norm.vmin <= value <= norm.vmax and abs(norm(value) - norm(last)) > 0.09:
                    ticks.append(value)
                    last = value
    return sorted(ticks)


def _compass(axes, template):
    """Draw arrows to north and east into a corner of a panel."""
    x0, y0, x1, y1 = template.region
    north, east = directions(template.tansip, (x1 - x0) / 2, (y1 - y0) / 2)
    halo = [withStroke(linewidth=3, foreground="white")]
    # Axes fractions, so that the arrows keep their size; the panel keeps the pixels square.
    length, aspect = 0.1, (x1 - x0) / (y1 - y0)
    centre = np.array([0.86, 0.16])
    for name, direction in (("N", north), ("E", east)):
        step = direction * length * np.array([min(1, 1 / aspect), min(1, aspect)])
        arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "path_effects": halo}
        axes.annotate("", centre + step, centre, "axes fraction", "axes fraction", arrowprops=arrow)
        axes.text(
            *(centre + 1.35 * step),
            name,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            path_effects=halo,
        )


def _stretch(images, noise):
    """One asinh stretch for several images, linear near the noise."""
    values = np.concatenate([image[np.isfinite(image)] for image in images])
    if not values.size:
        return Normalize(0, 1)
    low, middle, high = np.percentile(values, [1, 50, 99.7])
    width = noise if noise > 0 else max(high - middle, 1e-30) / 10
    return AsinhNorm(linear_width=3 * width, vmin=max(low, middle - 4 * width), vmax=max(high, middle + 10 * width))


def _frame_panels(panels, template, preview, unit, step):
    """FFI and template, on one scale."""
    ffi, flux, noise = preview.frames.ffi, preview.frames.flux, 0.0
    words = f"not scaled [{template.unit}]"
    if preview.result is not None:
        match = preview.result.match
        ffi = ffi - background_plane(ffi.shape, match.background)
        flux = flux * np.float32(match.scale)
        noise = float(np.nanmedian(preview.result.noise))
        words = f"times {match.scale:.4g}, to the scale of the TESS image"
    ffi, flux = block_mean(ffi, step), block_mean(flux, step)
    together = preview.result is not None
    above = "sky plane taken off" if together else "as observed"
    for axes, image, title, subtitle, label in (
        (panels[0], ffi, "TESS full frame image", above, unit),
        (panels[1], flux, "Pan-STARRS1 template", words, unit if together else template.unit),
    ):
        norm = _stretch([ffi, flux] if together else [image], noise)
        shown = _show(axes, image, template.region, step, cmap="gray_r", norm=norm)
        _title(axes, title, subtitle)
        _bar(axes, shown, f"{label}, asinh stretch" if label else "asinh stretch")
        if not np.isfinite(image).any():
            _say(axes, "no data")
    _compass(panels[0], template)


def _difference_panel(axes, template, preview, step):
    """Difference in units of its noise, the strongest residuals ringed and numbered."""
    words = "red: brighter in TESS; blue: fainter; grey: no data, or damaged star"
    _title(axes, "Difference: TESS minus template", words)
    if preview.result is None:
        _show(axes, np.full((1, 1), np.nan), template.region, max(preview.frames.ffi.shape))
        _say(axes, f"no difference: {preview.reason}")
        return
    trusted = np.where(preview.result.mask == 0, preview.result.difference, np.float32(np.nan))
    significance = block_significance(trusted, preview.result.noise, step)
    shown = _show(axes, significance, template.region, step, cmap="RdBu_r", norm=Normalize(-8, 8))
    _bar(axes, shown, "difference / noise [sigma]", extend="both")
    if not np.isfinite(significance).any():
        _say(axes, "no data")
    halo = [withStroke(linewidth=3, foreground="white")]
    # Seven pixels across at least, so that a ring leaves a star of a small region to be seen.
    points = axes.get_position().width * axes.figure.get_figwidth() * 72 / preview.frames.ffi.shape[1]
    across = max(16, 7 * points)
    for number, row in enumerate(preview.detections[:MARKED], start=1):
        width = 2.2 if abs(row["snr"]) >= CLEAR else 1.0
        axes.plot(row["x"], row["y"], "o", ms=across, mfc="none", mec="white", mew=width + 2)
        axes.plot(row["x"], row["y"], "o", ms=across, mfc="none", mec=RING, mew=width)
        axes.annotate(
            str(number),
            (row["x"], row["y"]),
            (across / 2 + 1, across / 2 + 1),
            textcoords="offset points",
            fontsize=9,
            color=INK,
            path_effects=halo,
            annotation_clip=True,
        )


def _coverage_panel(axes, template, step):
    """Part of each pixel with data."""
    coverage = block_mean(template.coverage, step)
    shown = _show(axes, coverage, template.region, step, cmap="cividis", norm=Normalize(0, 1))
    _title(axes, "Coverage", "part of each pixel's blurred area with Pan-STARRS1 data")
    _bar(axes, shown, "fraction")
    if not np.isfinite(coverage).any():
        _say(axes, "no data")


def axes_height(axes):
    """Height of a panel.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The panel, its aspect applied.

    Returns
    -------
    float
        [inch]
    """
    axes.apply_aspect()
    return axes.get_position().height * axes.figure.get_figheight()


def draw_flags(axes, template, step, columns=2):
    """Draw the DQ map of a template with a legend of the flags that are set.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where.
    template : syndiff_tasks.report.product.Template
        The template.
    step : int
        Side of the blocks [px].
    columns : int, default 2
        Columns of the legend.
    """
    colours = ListedColormap([colour for _, _, colour in FLAGS])
    grave = gravest_flag(template.dq, step)
    norm = BoundaryNorm(np.arange(len(FLAGS) + 1) - 0.5, len(FLAGS))
    _show(axes, grave, template.region, step, cmap=colours, norm=norm)
    axes.set_facecolor("white")
    _title(axes, "Flags", "gravest flag of each pixel; white is good")
    legend = []
    for bit, words, colour in FLAGS:
        pixels = np.count_nonzero(template.dq & int(bit))
        if pixels:
            legend.append(Patch(color=colour, label=f"{words} ({pixels:,} px)"))
    if legend:
        axes.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(0, -0.42 / axes_height(axes)),
            borderpad=0,
            borderaxespad=0,
            ncols=columns,
            fontsize=8,
            frameon=False,
            labelcolor=INK,
            handlelength=1,
            handleheight=1,
            columnspacing=1.2,
        )
    else:
        _say(axes, "no pixel is flagged")


def _words_panel(axes, preview, unit):
    """List what stands out, in words; return the height of the list in inches."""
    axes.axis("off")
    _title(axes, "What stands out of the difference", f"more than {THRESHOLD:g} sigma, off damaged stars")
    if preview.result is None:
        lines = ["there is no difference image:", *textwrap.wrap(preview.reason, 52)]
    elif not len(preview.detections):
        lines = ["nothing", ""]
    else:
        lines = [f"{'':>3} {'x':>8} {'y':>8}  {'RA':>9} {'Dec':>9} {'flux':>9} {'sigma':>6}"]
        for number, row in enumerate(preview.detections[:MARKED], start=1):
            lines.append(
                f"{number:>3} {row['x']:8.2f} {row['y']:8.2f}  {row['ra']:9.4f} {row['dec']:+9.4f} "
                f"{row['flux']:9.4g} {row['snr']:6.0f}"
            )
        more = len(preview.detections) - MARKED
        lines += [f"... and {more} more"] * (more > 0)
        lines += ["", f"x, y in FFI pixels from 0; flux in {unit or 'FFI units'}"]
    if preview.result is not None:
        match = preview.result.match
        lines += [
            f"PSFs matched to {100 * match.mismatch:.1f} % of a star's brightness",
            f"sky scatters {match.excess:.2f} times its formal noise",
        ]
    axes.text(0, 0.98, "\n".join(lines), fontsize=8.5, color=INK, family="monospace", va="top", linespacing=1.45)
    return 0.17 * len(lines)


def _closer_look(axes, region, preview, top):
    """Draw the strongest residual pixel by pixel below the list of all, `top` inches up."""
    x, y = round(preview.detections["x"][0]) - region.x0, round(preview.detections["y"][0]) - region.y0
    box = slice(max(y - CLOSE, 0), y + CLOSE + 1), slice(max(x - CLOSE, 0), x + CLOSE + 1)
    result = preview.result
    ffi = (preview.frames.ffi - background_plane(preview.frames.ffi.shape, result.match.background))[box]
    flux = preview.frames.flux[box] * np.float32(result.match.scale)
    norm = _stretch([ffi, flux], float(np.nanmedian(result.noise)))
    sigma = result.difference[box] / result.noise[box]
    side = 1.25
    high, wide = axes_height(axes), axes.get_position().width * axes.figure.get_figwidth()
    for column, (image, words, style) in enumerate(
        (
            (ffi, "number 1: TESS", {"cmap": "gray_r", "norm": norm}),
            (flux, "template", {"cmap": "gray_r", "norm": norm}),
            (sigma, "difference", {"cmap": "RdBu_r", "norm": Normalize(-8, 8)}),
        )
    ):
        stamp = axes.inset_axes((column * (side + 0.12) / wide, (top - side) / high, side / wide, side / high))
        stamp.imshow(image, origin="lower", interpolation="nearest", **style)
        stamp.set(xticks=[], yticks=[], facecolor=BLANK)
        stamp.set_title(words, loc="left", fontsize=8.5, color=QUIET, pad=3)
        for spine in stamp.spines.values():
            spine.set_color("#b0b0b0")


def footer(template, ffi_name):
    """One line that says which template this is.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    ffi_name : str
        Name of the FFI.

    Returns
    -------
    str
        FFI, region, offset, number of skycells, PSF.
    """
    header, (x0, y0, x1, y1) = template.header, template.region
    parts = [
        ffi_name,
        f"pixels x {x0}–{x1 - 1}, y {y0}–{y1 - 1}",
        f"offset ({header.get('DX_SHIFT', 0):+.4g}, {header.get('DY_SHIFT', 0):+.4g}) px",
        f"{len(template.skycells)} skycells",
    ]
    if isinstance(header.get("PSFSIGMA"), (int, float)):
        parts.append(f"PSF sigma {header['PSFSIGMA']:g} PS1 px")
    elif "PSF" in header:
        parts.append(f"PSF {header['PSF']}")
    return "   ·   ".join(parts)


def draw(template, preview, ffi_name, unit="electrons/s"):
    """Draw the picture of a template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        FFI and difference on the same pixels.
    ffi_name : str
        Name of the FFI, for the footer.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    matplotlib.figure.Figure
        Save it by `save`.
    """
    figure, panels = _panels(template.flux.shape)
    step = step_of(template.flux.shape)
    _frame_panels(panels[:2], template, preview, unit, step)
    _difference_panel(panels[2], template, preview, step)
    _coverage_panel(panels[3], template, step)
    draw_flags(panels[4], template, step, columns=1)
    used = _words_panel(panels[5], preview, unit)
    if preview.detections:
        _closer_look(panels[5], template.region, preview, axes_height(panels[5]) - used - 0.45)
    for axes in panels[:5]:
        axes.set_xlabel("x [FFI px]", fontsize=8.5, color=QUIET)
        axes.set_ylabel("y [FFI px]", fontsize=8.5, color=QUIET)
    figure.text(0.6 / WIDTH, 0.015, footer(template, ffi_name), fontsize=9, color=QUIET)
    return figure


def _panels(shape):
    """Lay out two rows of three panels of the image's proportions; sizes in inches."""
    width, top, between, bottom = 4.1, 0.65, 1.2, 2.1
    height = width * min(max(shape[0] / shape[1], 0.6), 1.3)
    total = top + height + between + height + bottom
    figure = Figure(figsize=(WIDTH, total), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    panels = []
    for low in (bottom + height + between, bottom):
        for column in range(3):
            box = ((0.7 + column * (width + 1.35)) / WIDTH, low / total, width / WIDTH, height / total)
            panels.append(figure.add_axes(box))
    return figure, panels


def save(figure, file):
    """Write a figure as PNG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What `draw` gave.
    file : str, Path or binary file
        Where to.
    """
    figure.savefig(file, format="png", metadata={"Software": "syndiff_tasks"})
