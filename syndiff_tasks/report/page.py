"""Self-contained HTML pages: one a template, one a sector. No script, no link to the outside; pictures are inside."""

import base64
import datetime
import html
import io
import math
import string
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from syndiff_tasks.geometry.tansip import pixel_to_sky
from syndiff_tasks.pixels import photometry
from syndiff_tasks.pixels.mask import DQ
from syndiff_tasks.report import picture

NAMED = 5
LABELLED = 60
CORNERS = ("CORNER1", "CORNER2", "CORNER3", "CORNER4")
# Skycells of one projection share a colour; Okabe & Ito (2008), told apart by colour-blind eyes.
TINTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

# CCDs as the sky shows them with the camera of the ecliptic (1) at the left and that of its pole (4) at the right:
# rows from the top. Read off the WCS of sectors 1, 20 and 30 by tesswcs; cameras 3 and 4 are turned by 180 degrees.
ARRANGEMENT = {1: ((4, 1), (3, 2)), 2: ((4, 1), (3, 2)), 3: ((2, 3), (1, 4)), 4: ((2, 3), (1, 4))}

PAGE = string.Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { margin: 0 auto; max-width: 1180px; padding: 2rem 1.5rem 4rem; background: #fcfcfb; color: #222;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.55rem; margin: 0; font-weight: 650; }
h2 { font-size: 1.08rem; margin: 2.4rem 0 .6rem; font-weight: 650; }
p { margin: .3rem 0; max-width: 48rem; }
.quiet { color: #6b6b6b; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.6rem; margin: 1.4rem 0 0; padding: 0; }
.facts div { min-width: 6rem; }
.facts dt { color: #6b6b6b; font-size: .82rem; }
.facts dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.warnings { border-left: 3px solid #d55e00; padding: .1rem 0 .1rem 1rem; margin: 0; list-style: none; }
.warnings li { margin: .35rem 0; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; }
.picture { background: white; border: 1px solid #e4e4e2; border-radius: 6px; padding: .6rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; font-weight: 600; color: #6b6b6b; }
th, td { padding: .22rem 1.2rem .22rem 0; border-bottom: 1px solid #ececea; vertical-align: top;
  overflow-wrap: anywhere; }
.number { text-align: right; }
summary { cursor: pointer; color: #0b5c8e; margin: .6rem 0; }
a { color: #0b5c8e; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
.scroll { overflow-x: auto; }
.plane { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem; margin-top: 1.2rem; }
.camera { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; margin-top: .3rem; }
.ccd { border: 1px solid #dededb; border-radius: 5px; padding: .5rem .6rem; min-height: 5.5rem; font-size: .82rem;
  background: #f4f4f2; color: #8a8a8a; overflow-wrap: anywhere; }
.ccd.done { background: #e6f1ee; border-color: #8fc3b3; color: #222; }
.ccd strong { display: block; font-weight: 600; }
.ccd a { display: block; }
</style>
</head>
<body>
$body
</body>
</html>
"""
)


class Entry(NamedTuple):
    """A finished template as a sector's page lists it.

    Attributes
    ----------
    camera, ccd : int
        1 to 4.
    title : str
        What to call it.
    page : str
        Path of its page, relative to the sector's page; empty where it has none.
    """

    camera: int
    ccd: int
    title: str
    page: str


def _text(value):
    """Escape anything for HTML."""
    return html.escape(str(value), quote=True)


def _table(heads, rows, numbers=()):
    """Lay out an HTML table; columns in `numbers` are set flush right."""

    def cells(tag, values):
        return "".join(
            f'<{tag} class="number">{value}</{tag}>' if index in numbers else f"<{tag}>{value}</{tag}>"
            for index, value in enumerate(values)
        )

    head = f"<thead><tr>{cells('th', map(_text, heads))}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _embedded(figure, words):
    """Put a figure into the page itself."""
    buffer = io.BytesIO()
    picture.save(figure, buffer)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<div class="picture"><img alt="{_text(words)}" src="data:image/png;base64,{data}"></div>'


def _some(names):
    """Name the first few."""
    named = ", ".join(names[:NAMED])
    return named if len(names) <= NAMED else f"{named} and {len(names) - NAMED} more"


def _bands_wanted(header):
    """Bands with a weight, from the provenance."""
    wanted = [key[7:].lower() for key in header if key.startswith("WEIGHT_") and header[key]]
    return wanted or list("rizy")


def _has(template, column):
    return column in template.skycells.colnames


def _names(template):
    """Names and bands of the skycells, as plain text."""
    table = template.skycells
    names = [str(name).strip() for name in table["NAME"]] if _has(template, "NAME") else []
    bands = [str(have).strip() for have in table["BANDS"]] if _has(template, "BANDS") else [None] * len(names)
    return list(zip(names, bands, strict=True))


def _about_bands(template):
    """Warn of skycells without some or any band."""
    known = [(name, bands) for name, bands in _names(template) if bands is not None]
    empty = [name for name, bands in known if not bands]
    sentences = []
    if empty:
        sentences.append(f"{len(empty)} of {len(known)} skycells have no image in Pan-STARRS1 at all: {_some(empty)}.")
    for band in _bands_wanted(template.header):
        lack = [name for name, bands in known if bands and band not in bands]
        if lack:
            verb = "lacks" if len(lack) == 1 else "lack"
            sentences.append(
                f"{len(lack)} of {len(known)} skycells {verb} the {band} band: {_some(lack)}. "
                "The other bands stand in, so colours shift the flux by some per cent."
            )
    return sentences


def _about_pixels(template):
    """Warn of pixels that are not to be trusted."""
    science = (template.dq & int(DQ.COLLATERAL)) == 0
    total = max(1, np.count_nonzero(science))
    sentences = []
    for bit, words in (
        (DQ.NO_PS1, "have no Pan-STARRS1 data"),
        (DQ.LOW_COVERAGE, "have too little Pan-STARRS1 data and are NaN"),
        (DQ.SAT_PS1, "hold a star that is saturated in Pan-STARRS1: their flux is too low"),
        (DQ.STAR_REPAIRED, "hold a repaired star: right to some per cent only"),
    ):
        pixels = np.count_nonzero(science & ((template.dq & int(bit)) != 0))
        if pixels:
            sentences.append(f"{pixels:,} of {total:,} pixels ({100 * pixels / total:.2g} %) {words}.")
    return sentences


def _about_difference(template, preview, unit):
    """Warn of a difference image that shows a problem."""
    if preview.result is None:
        return [f"There is no difference image: {preview.reason}."]
    fit = preview.result.match
    sentences = []
    expected = 10 ** (-0.4 * (template.zero_point - photometry.TESS_ZERO_POINT))
    if unit == "electrons/s" and math.isfinite(expected) and abs(fit.scale / expected - 1) > 0.2:
        sentences.append(
            f"The TESS image is {fit.scale / expected:.2f} times as bright as the template's zero point tells: "
            "check that both show the same field in the same units."
        )
    if fit.mismatch > 0.05:
        sentences.append(
            f"Stars match to {100 * fit.mismatch:.0f} % only: use hotpants or SFFT with a varying kernel, or another "
            "psf_sigma."
        )
    if fit.excess > 1.5:
        sentences.append(
            f"Empty sky scatters {fit.excess:.1f} times as much as the uncertainties tell: scattered light, or "
            "uncertainties that are too small."
        )
    return sentences


def warnings(template, preview, unit="electrons/s"):
    """Say in sentences what a user of the template should know.

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
    return _about_bands(template) + _about_pixels(template) + _about_difference(template, preview, unit)


def tangent_plane(ra, dec, ra0, dec0):
    """Project the sky onto the plane that touches it at (ra0, dec0).

    Parameters
    ----------
    ra, dec : ndarray of float
        [deg]
    ra0, dec0 : float
        [deg]

    Returns
    -------
    xi, eta : ndarray of float64
        Offsets to the east and to the north [deg]; NaN on the other half of the sky.

    Notes
    -----
    Gnomonic projection, Calabretta & Greisen (2002, A&A 395, 1077), section 5.1.3.
    """
    across, dec, dec0 = np.radians(np.asarray(ra) - ra0), np.radians(dec), math.radians(dec0)
    cosine = np.sin(dec) * math.sin(dec0) + np.cos(dec) * math.cos(dec0) * np.cos(across)
    cosine = np.where(cosine > 0, cosine, np.nan)
    xi = np.cos(dec) * np.sin(across) / cosine
    eta = (np.sin(dec) * math.cos(dec0) - np.cos(dec) * math.sin(dec0) * np.cos(across)) / cosine
    return np.degrees(xi), np.degrees(eta)


def _outline(template, pieces=24):
    """Sky positions along the edge of the template's pixels."""
    ny, nx = template.flux.shape
    t = np.linspace(0, 1, pieces)
    x = np.concatenate([t, np.ones(pieces), 1 - t, np.zeros(pieces)]) * nx - 0.5
    y = np.concatenate([np.zeros(pieces), t, np.ones(pieces), 1 - t]) * ny - 0.5
    return pixel_to_sky(template.tansip, x, y)


def _empty_figure():
    figure = Figure(figsize=(5.6, 5.2), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=picture.QUIET, length=3)
    for spine in axes.spines.values():
        spine.set_color("#b0b0b0")
    return figure, axes


def draw_footprint(template):
    """Draw where the template lies on the sky, with its skycells and their projections.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        Its SKYCELLS table tells the corners (RA_CORNER1, DEC_CORNER1, ...).

    Returns
    -------
    matplotlib.figure.Figure
        North up, east left.
    """
    figure, axes = _empty_figure()
    ny, nx = template.flux.shape
    ra0, dec0 = (float(value) for value in pixel_to_sky(template.tansip, (nx - 1) / 2, (ny - 1) / 2))
    if all(_has(template, f"{axis}_{corner}") for axis in ("RA", "DEC") for corner in CORNERS):
        _draw_skycells(axes, template, ra0, dec0)
    axes.plot(*tangent_plane(*_outline(template), ra0, dec0), color=picture.INK, linewidth=1.6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.invert_xaxis()
    axes.set_xlabel(f"east of RA {ra0:.4f} [deg]", fontsize=8.5, color=picture.QUIET)
    axes.set_ylabel(f"north of Dec {dec0:+.4f} [deg]", fontsize=8.5, color=picture.QUIET)
    axes.set_title("Sky: the template (black) and its skycells", loc="left", fontsize=10.5, color=picture.INK)
    return figure


def _draw_skycells(axes, template, ra0, dec0):
    """Draw each skycell in the colour of its projection, and name the projections."""
    corners = [
        tangent_plane(template.skycells[f"RA_{corner}"], template.skycells[f"DEC_{corner}"], ra0, dec0)
        for corner in CORNERS
    ]
    xi, eta = (np.array([corner[axis] for corner in corners]) for axis in (0, 1))
    names = [name for name, _ in _names(template)]
    projections = [name.split(".")[1] for name in names]
    tint = {name: TINTS[index % len(TINTS)] for index, name in enumerate(sorted(set(projections)))}
    colours = [tint[projection] for projection in projections]
    # One collection: a thousand patches of their own take 2 s.
    outlines = PolyCollection(
        np.stack([xi, eta], axis=-1).swapaxes(0, 1),
        facecolors=[f"{colour}22" for colour in colours],
        edgecolors=[f"{colour}99" for colour in colours],
        linewidths=0.7,
    )
    axes.add_collection(outlines)
    for index, name in enumerate(names if len(names) <= LABELLED else ()):
        place, label = (xi[:, index].mean(), eta[:, index].mean()), name.split(".")[2]
        axes.text(*place, label, ha="center", va="center", fontsize=7, color=colours[index], clip_on=True)
    for name, colour in tint.items():
        axes.plot([], [], "s", color=f"{colour}99", label=f"projection {name}")
    axes.legend(fontsize=8, loc="upper right", framealpha=0.9, edgecolor="#dddddd")


def draw_coverage(template):
    """Draw the histogram of coverage over the science pixels.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.

    Returns
    -------
    matplotlib.figure.Figure
        Number of pixels, logarithmic.
    """
    figure, axes = _empty_figure()
    values = template.coverage[((template.dq & int(DQ.COLLATERAL)) == 0) & np.isfinite(template.coverage)]
    axes.set_title("Coverage of the science pixels", loc="left", fontsize=10.5, color=picture.INK)
    if not values.size:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=picture.QUIET)
        return figure
    axes.hist(np.clip(values, 0, 1), bins=np.linspace(0, 1, 41), color="#3b6fa0", log=True)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0.7)
    axes.set_xlabel("part of the pixel's blurred area with Pan-STARRS1 data", fontsize=8.5, color=picture.QUIET)
    axes.set_ylabel("number of pixels", fontsize=8.5, color=picture.QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _facts(template, preview):
    """Show the few numbers that matter first."""
    science = (template.dq & int(DQ.COLLATERAL)) == 0
    total = max(1, np.count_nonzero(science))
    coverage = template.coverage[science & np.isfinite(template.coverage)]
    projections = {name.split(".")[1] for name, _ in _names(template) if name.count(".") == 2}
    facts = [
        ("skycells", f"{len(template.skycells):,}"),
        ("projections", f"{len(projections)}"),
        ("mean coverage", f"{100 * coverage.mean():.2f} %" if coverage.size else "none"),
        ("pixels without a flag", f"{100 * np.count_nonzero(template.dq[science] == 0) / total:.1f} %"),
    ]
    if preview.result is not None:
        facts += [
            ("scale to TESS", f"{preview.result.match.scale:.5g}"),
            ("stars matched to", f"{100 * preview.result.match.mismatch:.1f} %"),
            ("residuals > 5 sigma", f"{len(preview.detections)}"),
        ]
    items = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _flags(template):
    """Count the pixels of each flag."""
    rows = []
    for bit, words, colour in picture.FLAGS:
        pixels = np.count_nonzero(template.dq & int(bit))
        swatch = f'<span class="swatch" style="background:{colour}"></span>'
        rows.append((f"{swatch}{_text(bit.name)}", int(bit), _text(words), f"{pixels:,}"))
    return _table(("flag", "value", "meaning", "pixels"), rows, numbers=(1, 3))


def _skycells(template):
    """List the skycells: those that lack a band first and in sight, all of them on demand."""
    wanted = _bands_wanted(template.header)
    given = template.skycells["PIXELS"] if _has(template, "PIXELS") else [""] * len(template.skycells)
    rows, lacking = [], []
    for (name, bands), pixels in zip(_names(template), given, strict=True):
        missing = "unknown" if bands is None else ", ".join(band for band in wanted if band not in bands)
        row = (_text(name), _text(bands or ""), _text(missing or "none"), f"{pixels:,}" if bands is not None else "")
        rows.append(row)
        if missing:
            lacking.append(row)
    heads, numbers = ("skycell", "bands used", "bands missing", "TESS pixels given"), (3,)
    seen = _table(heads, lacking, numbers) if lacking else "<p>No skycell lacks a band.</p>"
    return f"{seen}<details><summary>All {len(rows)} skycells</summary>{_table(heads, rows, numbers)}</details>"


def _detections(preview, unit):
    """List what stands out."""
    if preview.result is None:
        return f"<p>There is no difference image: {_text(preview.reason)}.</p>"
    if not len(preview.detections):
        return "<p>Nothing stands out by more than 5 sigma.</p>"
    rows = [
        (
            number,
            f"{row['x']:.2f}",
            f"{row['y']:.2f}",
            f"{row['ra']:.5f}",
            f"{row['dec']:+.5f}",
            f"{row['flux']:.4g} ± {row['flux_error']:.2g}",
            f"{row['snr']:.1f}",
        )
        for number, row in enumerate(preview.detections[:50], start=1)
    ]
    heads = ("", "x [FFI px]", "y [FFI px]", "RA [deg]", "Dec [deg]", f"flux [{unit}]", "sigma")
    more = len(preview.detections) - len(rows)
    return _table(heads, rows, numbers=range(7)) + (f"<p>… and {more} more.</p>" if more > 0 else "")


def _made(manifest):
    """Show when, where and by what the template was made, and how long it took."""
    rows = [
        (_text(words), _text(manifest[key]))
        for key, words in (("made", "made"), ("host", "on"), ("syndiff_tasks", "by syndiff_tasks"))
        if manifest.get(key)
    ]
    seconds = manifest.get("notes", {}).get("seconds", {})
    rows += [(f"time for: {_text(step)}", f"{value:.1f} s") for step, value in seconds.items()]
    return f"<h2>Making</h2>{_table((), rows)}" if rows else ""


def _settings(template, manifest):
    """Show the settings, and the whole primary header on demand."""
    settings = manifest.get("settings", {})
    rows = [(_text(name), _text(value)) for name, value in sorted(settings.items())]
    cards = [
        (_text(card.keyword), _text(card.value), _text(card.comment))
        for card in template.header.cards
        if card.keyword and card.keyword not in ("SIMPLE", "BITPIX", "NAXIS", "EXTEND")
    ]
    seen = _table((), rows) if rows else _table((), cards)
    more = f"<details><summary>Primary header</summary>{_table((), cards)}</details>" if rows else ""
    return f"<h2>Settings</h2>{seen}{more}"


def template_page(template, preview, ffi_name, manifest=None, unit="electrons/s"):
    """Compose the page of a template.

    Parameters
    ----------
    template : syndiff_tasks.report.product.Template
        The template.
    preview : syndiff_tasks.report.difference.DifferencePreview
        FFI and difference on its pixels.
    ffi_name : str
        Name of the FFI.
    manifest : Mapping, optional
        What the product records of its making: "settings", "made", "host", "syndiff_tasks", and in "notes" a mapping
        "seconds" from step to duration.
    unit : str, default "electrons/s"
        Unit of the FFI.

    Returns
    -------
    str
        HTML.
    """
    header, manifest = template.header, manifest or {}
    title = _title(header, ffi_name)
    sentences = warnings(template, preview, unit)
    told = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">{_text(picture.footer(template, ffi_name))}<br>{_text(template.path.name)}</p>',
        _facts(template, preview),
        f'<h2>What to know</h2><ul class="warnings">{told}</ul>' if sentences else "",
        "<h2>Picture</h2>",
        _embedded(picture.draw(template, preview, ffi_name, unit), "TESS image, template, difference, coverage, flags"),
        f"<h2>What stands out of the difference</h2>{_detections(preview, unit)}",
        '<h2>Where and how well covered</h2><div class="pair">',
        _embedded(draw_footprint(template), "Footprint on the sky with skycells and projections"),
        _embedded(draw_coverage(template), "Histogram of coverage"),
        "</div>",
        f"<h2>Flags (DQ)</h2>{_flags(template)}",
        f"<h2>Skycells</h2>{_skycells(template)}",
        _settings(template, manifest),
        _made(manifest),
    ]
    return PAGE.substitute(title=_text(title), body="\n".join(part for part in parts if part))


def _title(header, ffi_name):
    """Name a template by its place in the survey, or by its FFI."""
    if all(keyword in header for keyword in ("SECTOR", "CAMERA", "CCD")):
        return f"Template of sector {header['SECTOR']}, camera {header['CAMERA']}, CCD {header['CCD']}"
    return f"Template of {ffi_name}"


def write(path, template, preview, manifest=None, unit="electrons/s"):
    """Write the page of a template.

    Parameters
    ----------
    path : str or Path
        Where to; the caller sees to it that it appears whole or not at all.
    template, preview, manifest, unit
        As in `template_page`; the FFI's name is that of the template's header.
    """
    ffi_name = str(template.header.get("FFI", template.path.name))
    Path(path).write_text(template_page(template, preview, ffi_name, manifest, unit), encoding="utf-8")


def sector_page(sector, entries, states=None):
    """Compose the page of a sector: which CCDs are done, with links to their templates.

    Parameters
    ----------
    sector : int
        TESS sector.
    entries : iterable of Entry
        The finished templates; several of one CCD (offsets, regions) stand below each other.
    states : dict of (int, int) to str, optional
        What to say of a camera and CCD without templates instead of "not yet".

    Returns
    -------
    str
        HTML.
    """
    finished, states = {}, states or {}
    for entry in entries:
        finished.setdefault((entry.camera, entry.ccd), []).append(entry)
    cameras = []
    for camera, rows in ARRANGEMENT.items():
        cells = "".join(
            _ccd(ccd, finished.get((camera, ccd), []), states.get((camera, ccd), "not yet"))
            for row in rows
            for ccd in row
        )
        cameras.append(f'<div><span class="quiet">camera {camera}</span><div class="camera">{cells}</div></div>')
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    body = (
        f"<h1>Templates of sector {_text(sector)}</h1>"
        f'<p class="quiet">{len(finished)} of 16 CCDs have a template; as of {now}.</p>'
        f'<div class="plane">{"".join(cameras)}</div>'
        '<p class="quiet">CCDs lie as on the sky, the ecliptic to the left and its pole to the right.</p>'
    )
    return PAGE.substitute(title=f"Templates of sector {_text(sector)}", body=body)


def _ccd(ccd, entries, otherwise):
    """Show one CCD of the focal plane."""
    links = "".join(
        f'<a href="{_text(quote(entry.page))}">{_text(entry.title)}</a>'
        if entry.page
        else f"<div>{_text(entry.title)}</div>"
        for entry in sorted(entries, key=lambda entry: entry.title)
    )
    state = "ccd done" if entries else "ccd"
    return f'<div class="{state}"><strong>CCD {ccd}</strong>{links or _text(otherwise)}</div>'


def write_sector(path, sector, entries, states=None):
    """Write the page of a sector.

    Parameters
    ----------
    path : str or Path
        Where to; the caller sees to it that it appears whole or not at all.
    sector, entries, states
        As in `sector_page`.
    """
    Path(path).write_text(sector_page(sector, entries, states), encoding="utf-8")
