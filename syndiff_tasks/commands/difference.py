"""``syndiff_tasks difference``: subtract a template from its FFI, and print what stands out.

A plain recipe for a look: scale (a small matching kernel), background plane and robust clipping by linear least
squares. Flux and significance of a detection are good to some per cent; for photometry give the template to hotpants
or SFFT.
"""

import sys
from pathlib import Path

from astropy.io import fits

from ..geometry.tansip import tansip_keywords
from ..io.fits_in import read_ffi
from ..report import difference, figure, picture
from ..report.product import read_template


def write_difference(path, result, template, ffi_name, unit):
    """Write DIFFERENCE, NOISE and MASK with the template's WCS and checksums.

    Parameters
    ----------
    path : str or Path
        Overwritten.
    result : syndiff_tasks.report.difference.Difference
        What to write.
    template : syndiff_tasks.report.product.Template
        What was subtracted.
    ffi_name, unit : str
        The FFI, and the unit of its flux.
    """
    match = result.match
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "FFI": ffi_name,
            "TEMPLATE": template.path.name,
            "ROI": (",".join(map(str, template.region)), "x0,y0,x1,y1 of the FFI, half-open, from 0"),
            "SCALE": (match.scale, f"{unit} per template unit"),
            "KERNSIZE": (match.kernel.shape[0], "[px] side of the matching kernel"),
            "BACK0": (match.background[0], f"[{unit}] sky at the first pixel"),
            "BACK1": (match.background[1], f"[{unit}/px] slope of the sky along x"),
            "BACK2": (match.background[2], f"[{unit}/px] slope of the sky along y"),
            "MISMATCH": (match.mismatch, "residual of a star over its brightness"),
            "EXCESS": (match.excess, "scatter of empty sky over its formal noise"),
            "NFITTED": (match.pixels, "pixels in the fit"),
        }
    )
    wcs = tansip_keywords(template.tansip)
    hdus = [primary]
    for name, image, bunit in (
        ("DIFFERENCE", result.difference, unit),
        ("NOISE", result.noise, unit),
        ("MASK", result.mask, None),
    ):
        hdu = fits.ImageHDU(image, name=name)
        hdu.header.update(wcs)
        if bunit:
            hdu.header["BUNIT"] = bunit
        hdus.append(hdu)
    for value, meaning in difference.MASK_MEANING.items():
        hdus[-1].header.add_comment(f"MASK {value}: {meaning}")
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)


def report(match, detections, unit):
    """Describe the fit and the detections.

    Parameters
    ----------
    match : syndiff_tasks.report.difference.Match
        The fit.
    detections : astropy.table.Table
        Sources that stand out of the difference image.
    unit : str
        Unit of the FFI.

    Returns
    -------
    text : str
        Lines, each with its end.
    """
    side = match.kernel.shape[0]
    lines = [
        f"scale {match.scale:.5g} {unit} per template unit, kernel {side} x {side} px, "
        f"background {match.background[0]:.4g} {match.background[1]:+.3g} x {match.background[2]:+.3g} y",
        f"stars matched to {100 * match.mismatch:.1f} %, empty sky scatters {match.excess:.2f} times its formal noise, "
        f"{match.pixels:,} pixels fitted",
    ]
    if len(detections):
        lines.append(f"{'x':>9} {'y':>9} {'RA':>11} {'Dec':>11} {'flux':>10} {'+-':>9} {'sigma':>7}")
    else:
        lines.append("nothing stands out")
    lines += [
        f"{row['x']:9.2f} {row['y']:9.2f} {row['ra']:11.6f} {row['dec']:+11.6f} {row['flux']:10.4g} "
        f"{row['flux_error']:9.2g} {row['snr']:7.1f}"
        for row in detections
    ]
    return "".join(f"{line}\n" for line in lines)


def run(options):
    """Subtract, print and write what the options name.

    Parameters
    ----------
    options : argparse.Namespace
        As `cli` declares them.

    Returns
    -------
    code : int
        0, or 2 where a file cannot be used.
    """
    try:
        template, ffi = read_template(options.template), read_ffi(options.ffi)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    unit = str(ffi.header.get("BUNIT", "electrons/s"))
    frames = difference.frames_of(template, ffi.image, ffi.uncertainty)
    size = options.kernel or difference.kernel_size(frames)
    result = difference.subtract(frames, size, options.mesh)
    detections = difference.find_transients(result, template.tansip, template.region[:2], threshold=options.threshold)
    sys.stdout.write(report(result.match, detections, unit))
    if options.out:
        write_difference(options.out, result, template, Path(options.ffi).name, unit)
    if options.png:
        preview = difference.DifferencePreview(frames, result, detections, "")
        figure.save(picture.draw(template, preview, Path(options.ffi).name, unit), options.png)
    return 0
