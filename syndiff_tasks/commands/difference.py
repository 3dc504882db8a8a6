"""``syndiff_tasks difference``: subtract a template from its FFI, and print what stands out.

The flux of a detection is that of a Gaussian fitted to the difference image, good to some per cent.
"""

import sys
from pathlib import Path

from ..chain import difference as chain_difference
from ..io.fits_in import read_ffi
from ..pixels.kernel import middle_scale
from ..report import difference, figure, picture
from ..report.product import read_template


def report(result, detections, unit):
    """Describe the fit and the detections.

    Parameters
    ----------
    result : syndiff_tasks.pixels.difference.Difference
        The difference.
    detections : astropy.table.Table
        Sources that stand out of the difference image.
    unit : str
        Unit of the FFI.

    Returns
    -------
    text : str
        Lines, each with its end.
    """
    size, wings, order = result.kernel.basis
    taps = f"kernel of {size} x {size} taps{' and wings' if wings else ''}, order {order}"
    middle = result.sky.plane[0] + result.sky.plane[1] * result.sky.shape[1] / 2
    middle += result.sky.plane[2] * result.sky.shape[0] / 2
    lines = [
        f"scale {middle_scale(result.kernel):.5g} {unit} per template unit, {taps}, sky {middle:.4g} {unit} in the "
        f"middle, {len(result.straps.columns)} straps",
        f"stars matched to {100 * result.mismatch:.1f} %, empty sky scatters {result.excess:.2f} times its formal "
        f"noise, {result.pixels:,} pixels fitted",
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
        kernel = chain_difference.named_kernel(options.kernel, template.flux.shape)
        preview = difference.preview(
            template, ffi.image, ffi.uncertainty, kernel, options.mesh, threshold=options.threshold
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if preview.result is None:
        sys.stderr.write(f"{options.ffi}: {preview.reason}\n")
        return 2
    name, unit = Path(options.ffi).name, chain_difference.unit_of(ffi.header)
    sys.stdout.write(report(preview.result, preview.detections, unit))
    if options.out:
        chain_difference.write(options.out, preview.result, template, name, ffi.header, options.mesh)
    if options.png:
        figure.save(picture.draw(template, preview, name, unit), options.png)
    return 0
