"""The picture of a template: FFI, template, difference, coverage and flags, with a caption that explains itself."""

import math
import textwrap

import numpy as np
from matplotlib.colors import AsinhNorm, BoundaryNorm, ListedColormap, Normalize
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from syndiff_tasks.geometry.tansip import pixel_to_sky, sky_to_pixel
from syndiff_tasks.pixels.cutout import sky_with_straps
from syndiff_tasks.pixels.difference import Flag
from syndiff_tasks.pixels.kernel import middle_scale
from syndiff_tasks.report.caption import caption
from syndiff_tasks.report.difference import THRESHOLD, is_searched
from syndiff_tasks.report.downscale import block_mean, block_side, block_significance, most_serious_flag
from syndiff_tasks.report.figure import FRAME, INK, QUIET, new_figure, style_axes
from syndiff_tasks.report.flags import FLAGS

BLANK, RING, TARGET = "#dcdcdc", "#111111", "#0a7d3c"
# An open cross: it leaves the target itself visible.
CROSS = Path([(-1, 0), (-0.5, 0), (0.5, 0), (1, 0), (0, -1), (0, -0.5), (0, 0.5), (0, 1)], [1, 2] * 4)
WIDTH = 16.6  # of the whole picture [inch]
MARKED = 8  # detections that are ringed and listed
STAMP_REACH = 10  # pixels on each side of the strongest detection in its stamps [px]
# Detections beyond this significance get heavy rings: what is only just significant must not draw the eye first.
CLEAR = 10


def directions(tansip, x, y):
    """Return the directions of north and east in pixel coordinates.

    Parameters
    ----------
    tansip : TanSip
        The WCS.
    x, y : float
        Position [px].

    Returns
    -------
    north, east : ndarray of float64, shape (2,)
        Unit vectors (x, y) along which declination and right ascension increase.
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


def show_image(axes, image, region, side, **style):
    """Draw an image of blocks of `side` pixels on the axes of the FFI's pixels."""
    ny, nx = image.shape
    extent = (region.x0 - 0.5, region.x0 + nx * side - 0.5, region.y0 - 0.5, region.y0 + ny * side - 0.5)
    shown = axes.imshow(image, origin="lower", extent=extent, interpolation="nearest", **style)
    axes.set_xlim(region.x0 - 0.5, region.x1 - 0.5)
    axes.set_ylim(region.y0 - 0.5, region.y1 - 0.5)
    axes.set_xlabel("x [FFI px]", fontsize=8.5, color=QUIET)
    axes.set_ylabel("y [FFI px]", fontsize=8.5, color=QUIET)
    axes.set_facecolor(BLANK)
    axes.set_anchor("NW")
    axes.locator_params(nbins=6, integer=True)
    axes.ticklabel_format(useOffset=False, style="plain")
    style_axes(axes)
    return shown


def write_title(axes, title, subtitle):
    """Write a title and a line below it above a panel."""
    axes.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=8.5, color=QUIET, va="bottom")


def _note(axes, sentence):
    """Write a sentence into a panel that has nothing to show."""
    text = textwrap.fill(sentence, 42)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=QUIET)


def _color_bar(axes, shown, label, **style):
    """Draw a color bar with its unit beside a panel, as high as the panel."""
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((1.025, 0, 0.03, 1)), **style)
    if isinstance(shown.norm, AsinhNorm):
        bar.set_ticks(_asinh_ticks(shown.norm), minor=False)
        bar.set_ticks([], minor=True)
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.set_label(label, fontsize=8.5, color=QUIET)
    bar.ax.tick_params(labelsize=8, colors=QUIET, length=2)
    bar.outline.set_visible(False)


def _asinh_ticks(norm):
    """Return zero and those of 1, 3, 10, 30 ... that are far enough apart on an asinh scale."""
    ticks = [0.0]
    for sign in (1, -1):
        last = 0.0
        for power in range(-6, 9):
            for value in (sign * 10.0**power, sign * 3 * 10.0**power):
                if norm.vmin <= value <= norm.vmax and abs(norm(value) - norm(last)) > 0.09:
                    ticks.append(value)
                    last = value
    return sorted(ticks)


def _halo():
    """Return the white edge that keeps lines and letters visible on an image."""
    return [withStroke(linewidth=3, foreground="white")]


def _compass(axes, template):
    """Draw arrows to north and east into a corner of a panel."""
    x0, y0, x1, y1 = template.region
    north, east = directions(template.tansip, (x1 - x0) / 2, (y1 - y0) / 2)
    # Axes fractions, so that the arrows keep their size; the panel keeps the pixels square.
    length, aspect = 0.1, (x1 - x0) / (y1 - y0)
    center = np.array([0.86, 0.16])
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "path_effects": _halo()}
    for name, direction in (("N", north), ("E", east)):
        step = direction * length * np.array([min(1, 1 / aspect), min(1, aspect)])
        axes.annotate("", center + step, center, "axes fraction", "axes fraction", arrowprops=style)
        axes.text(
            *(center + 1.35 * step),
            name,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            path_effects=_halo(),
        )


def target_pixel(template):
    """Return where the target of a template lies.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.

    Returns
    -------
    x, y : float
        [FFI px, 0-based], or None where the template was made without a target or the target lies off its pixels.
    """
    if template.target is None:
        return None
    x0, y0, x1, y1 = template.region
    x, y = (float(value) for value in sky_to_pixel(template.tansip, *template.target))
    inside = -0.5 <= x < x1 - x0 - 0.5 and -0.5 <= y < y1 - y0 - 0.5
    return (x + x0, y + y0) if inside else None


def _mark_target(axes, place):
    """Draw an open cross at the target."""
    style = {"marker": CROSS, "ms": 32, "mec": TARGET, "mfc": "none", "mew": 1.6, "ls": "none"}
    axes.plot(*place, label="target", path_effects=_halo(), **style)


def _stretch(images, noise):
    """Return one asinh stretch for several images, linear near the noise."""
    values = np.concatenate([image[np.isfinite(image)] for image in images])
    if not values.size:
        return Normalize(0, 1)
    low, middle, high = np.percentile(values, [1, 50, 99.7])
    width = noise if noise > 0 else max(high - middle, 1e-30) / 10
    return AsinhNorm(linear_width=3 * width, vmin=max(low, middle - 4 * width), vmax=max(high, middle + 10 * width))


def matched_images(preview):
    """Return what is compared in a difference image.

    Parameters
    ----------
    preview : syndiff_tasks.report.difference.DifferencePreview
        A preview with a difference.

    Returns
    -------
    ffi, model : ndarray of float32, shape (ny, nx)
        FFI minus sky and straps, and the convolved template; NaN = no data.
    """
    result = preview.result
    model = np.where(result.flags & int(Flag.NO_DATA), np.float32(np.nan), result.model)
    return preview.pair.ffi - sky_with_straps(result.sky, result.straps), model


def draw_matched(panels, template, preview, unit, side):
    """Draw FFI and template, on one stretch where they are matched."""
    ffi, flux, noise = preview.pair.ffi, template.flux, 0.0
    matched = preview.result is not None
    ffi_subtitle, flux_subtitle = "as observed", f"not scaled [{template.unit}]"
    if matched:
        ffi, flux = matched_images(preview)
        noise = float(np.nanmedian(preview.result.noise))
        ffi_subtitle = "sky subtracted"
        flux_subtitle = f"convolved to match the FFI, scale {middle_scale(preview.result.kernel):.4g}"
    place = target_pixel(template)
    if place:
        ffi_subtitle += "; green cross: target"
    ffi, flux = block_mean(ffi, side), block_mean(flux, side)
    for axes, image, title, subtitle, label in (
        (panels[0], ffi, "TESS Full Frame Image", ffi_subtitle, unit),
        (panels[1], flux, "Pan-STARRS1 template", flux_subtitle, unit if matched else template.unit),
    ):
        norm = _stretch([ffi, flux] if matched else [image], noise)
        shown = show_image(axes, image, template.region, side, cmap="gray_r", norm=norm)
        write_title(axes, title, subtitle)
        _color_bar(axes, shown, f"flux per pixel{f' [{label}]' if label else ''}, asinh stretch")
        if not np.isfinite(image).any():
            _note(axes, "no data")
        if place:
            _mark_target(axes, place)
    _compass(panels[0], template)


def draw_difference(axes, template, preview, side):
    """Draw the difference in units of its noise, the most significant detections ringed and numbered."""
    write_title(
        axes, "Difference: FFI minus template", "red: brighter in the FFI; blue: fainter; gray: masked or no data"
    )
    if preview.result is None:
        show_image(axes, np.full((1, 1), np.nan), template.region, max(preview.pair.ffi.shape))
        _note(axes, f"no difference image: {preview.reason}")
        return
    trusted = np.where(is_searched(preview.result), preview.result.difference, np.float32(np.nan))
    significance = block_significance(trusted, preview.result.noise, side)
    shown = show_image(axes, significance, template.region, side, cmap="RdBu_r", norm=Normalize(-8, 8))
    _color_bar(axes, shown, "difference / noise [sigma]", extend="both")
    if not np.isfinite(significance).any():
        _note(axes, "no data")
    if place := target_pixel(template):
        _mark_target(axes, place)
    _ring(axes, preview.detections, preview.pair.ffi.shape[1])


def _ring(axes, detections, nx):
    """Ring and number the most significant detections."""
    # At least seven pixels across, so that the star inside the ring stays visible in a small region.
    points_per_pixel = axes.get_position().width * axes.figure.get_figwidth() * 72 / nx
    across = max(16, 7 * points_per_pixel)
    for number, row in enumerate(detections[:MARKED], start=1):
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
            path_effects=_halo(),
            annotation_clip=True,
        )


def _draw_coverage(axes, template, side):
    """Draw the fraction of each pixel that has data."""
    coverage = block_mean(template.coverage, side)
    shown = show_image(axes, coverage, template.region, side, cmap="cividis", norm=Normalize(0, 1))
    write_title(axes, "Coverage", "fraction of each pixel's PSF-weighted area with Pan-STARRS1 data")
    _color_bar(axes, shown, "coverage [fraction]")
    if not np.isfinite(coverage).any():
        _note(axes, "no data")


def panel_height(axes):
    """Return the height of a panel after its aspect is applied [inch]."""
    axes.apply_aspect()
    return axes.get_position().height * axes.figure.get_figheight()


def _flags_set(template):
    """Return the flags that are set anywhere, with the number of their pixels."""
    counted = ((flag, np.count_nonzero(template.dq & int(flag.bit))) for flag in FLAGS)
    return [(flag, pixels) for flag, pixels in counted if pixels]


def _draw_flags(axes, template, side):
    """Draw the most serious DQ flag of each pixel with a legend of the flags that are set."""
    colors = ListedColormap([flag.color for flag in FLAGS])
    norm = BoundaryNorm(np.arange(len(FLAGS) + 1) - 0.5, len(FLAGS))
    show_image(axes, most_serious_flag(template.dq, side), template.region, side, cmap=colors, norm=norm)
    axes.set_facecolor("white")
    write_title(axes, "Flags", "most serious flag of each pixel; white: no flag")
    legend = [
        Patch(facecolor=flag.color, edgecolor=FRAME, label=f"{flag.meaning} ({pixels:,} px)")
        for flag, pixels in _flags_set(template)
    ]
    if not legend:
        _note(axes, "no pixel is flagged")
        return
    axes.legend(
        handles=legend,
        loc="upper left",
        bbox_to_anchor=(0, -0.5 / panel_height(axes)),
        borderpad=0,
        borderaxespad=0,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        handleheight=1,
    )


def _list_detections(axes, preview, unit):
    """List the detections as text; return the height of the list [inch]."""
    axes.axis("off")
    write_title(axes, "Sources in the difference", f"at least {THRESHOLD:g} sigma, away from damaged stars")
    if preview.result is None:
        lines = ["no difference image:", *textwrap.wrap(preview.reason, 52)]
    elif not len(preview.detections):
        lines = ["none", ""]
    else:
        lines = [f"{'':>3} {'x':>8} {'y':>8}  {'RA':>9} {'Dec':>9} {'flux':>9} {'sigma':>6}"]
        for number, row in enumerate(preview.detections[:MARKED], start=1):
            lines.append(
                f"{number:>3} {row['x']:8.2f} {row['y']:8.2f}  {row['ra']:9.4f} {row['dec']:+9.4f} "
                f"{row['flux']:9.4g} {row['snr']:6.0f}"
            )
        more = len(preview.detections) - MARKED
        lines += [f"... and {more} more"] * (more > 0)
        lines += ["", f"x, y: 0-based FFI pixels; RA, Dec: degrees; flux: {unit or 'FFI units'}"]
    if preview.result is not None:
        lines += [
            f"PSF mismatch: {100 * preview.result.mismatch:.1f} % of a star's brightness",
            f"scatter of empty sky: {preview.result.excess:.2f} x the formal noise",
        ]
    axes.text(0, 0.98, "\n".join(lines), fontsize=8.5, color=INK, family="monospace", va="top", linespacing=1.45)
    return 0.17 * len(lines)


def _draw_stamps(axes, region, preview, top):
    """Draw the most significant detection in stamps below the list, their upper edge `top` inches above the panel's."""
    x, y = round(preview.detections["x"][0]) - region.x0, round(preview.detections["y"][0]) - region.y0
    rows, columns = (slice(max(at - STAMP_REACH, 0), at + STAMP_REACH + 1) for at in (y, x))
    box, result = (rows, columns), preview.result
    ffi, flux = (image[box] for image in matched_images(preview))
    norm = _stretch([ffi, flux], float(np.nanmedian(result.noise)))
    sigma = result.difference[box] / result.noise[box]
    side = 1.25
    height, width = panel_height(axes), axes.get_position().width * axes.figure.get_figwidth()
    for column, (image, title, style) in enumerate(
        (
            (ffi, "number 1: FFI", {"cmap": "gray_r", "norm": norm}),
            (flux, "template", {"cmap": "gray_r", "norm": norm}),
            (sigma, "difference", {"cmap": "RdBu_r", "norm": Normalize(-8, 8)}),
        )
    ):
        stamp = axes.inset_axes((column * (side + 0.12) / width, (top - side) / height, side / width, side / height))
        stamp.imshow(image, origin="lower", interpolation="nearest", **style)
        stamp.set(xticks=[], yticks=[], facecolor=BLANK)
        stamp.set_title(title, loc="left", fontsize=8.5, color=QUIET, pad=3)
        style_axes(stamp)


def draw(template, preview, ffi_name, unit="electrons/s"):
    """Draw the picture of a template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        FFI and difference on the same pixels.
    ffi_name : str
        Name of the FFI, for the caption.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows of three panels, 1660 px wide; `syndiff_tasks.report.figure.save` writes it.
    """
    figure, panels = new_panels(template.flux.shape, len(_flags_set(template)))
    side = block_side(template.flux.shape)
    draw_matched(panels[:2], template, preview, unit, side)
    draw_difference(panels[2], template, preview, side)
    _draw_coverage(panels[3], template, side)
    _draw_flags(panels[4], template, side)
    used = _list_detections(panels[5], preview, unit)
    if preview.detections:
        _draw_stamps(panels[5], template.region, preview, panel_height(panels[5]) - used - 0.45)
    figure.text(0.7 / WIDTH, 0.22 / figure.get_figheight(), caption(template, ffi_name), fontsize=9, color=QUIET)
    return figure


def new_panels(shape, legend_lines, columns=3):
    """Lay out two rows of panels of the image's proportions above a legend and a caption.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the image.
    legend_lines : int
        Lines of the legend below the last panels.
    columns : int, default 3
        Panels in a row.

    Returns
    -------
    figure : matplotlib.figure.Figure
    panels : list of matplotlib.axes.Axes
        Row by row.
    """
    width, top, between, bottom = 4.1, 0.65, 1.2, 1.1 + 0.17 * legend_lines  # [inch]
    height = width * min(max(shape[0] / shape[1], 0.6), 1.3)
    total, whole = top + height + between + height + bottom, WIDTH - (3 - columns) * (width + 1.35)
    figure = new_figure(whole, total)
    panels = []
    for low in (bottom + height + between, bottom):
        for column in range(columns):
            box = ((0.7 + column * (width + 1.35)) / whole, low / total, width / whole, height / total)
            panels.append(figure.add_axes(box))
    return figure, panels
