"""The picture and the page of a difference image."""

from pathlib import Path

from .difference import unit_of


def draw(result, template, ffi, finished, beside):
    """Draw the picture and write the page of a difference image, unless they exist.

    Parameters
    ----------
    result : syndiff_tasks.pixels.difference.Difference
        The difference.
    template : syndiff_tasks.report.product.Template
        What was subtracted.
    ffi : syndiff_tasks.io.fits_in.FFIImage
        The FFI.
    finished : targets.WholeTarget
        The difference file.
    beside : list of targets.WholeTarget
        Picture and page.
    """
    # Imported here: matplotlib takes half a second, which only drawing is worth.
    from syndiff_tasks.report import difference, difference_page, difference_picture, figure, product

    found = difference.find_transients(result, template.tansip, template.region[:2])
    pair = product.pair_of(template, ffi.image, ffi.uncertainty)
    preview = difference.DifferencePreview(pair, result, found, "")
    unit, (drawing, page) = unit_of(ffi.header), beside
    if not drawing.exists():
        with drawing.writing() as draft:
            figure.save(difference_picture.draw(template, preview, unit), draft.path)
    if not page.exists():
        with page.writing() as draft:
            png = Path(drawing.path).read_bytes()
            difference_page.write(draft.path, finished.path, template, preview, png, finished.manifest(), unit)
