"""The picture and the page of a template."""

from pathlib import Path

from syndiff_tasks.io import fits_in

from .difference import unit_of


def draw(plan, targets):
    """Draw the picture and write the page of a template, unless they exist."""
    finished, *beside = targets
    if all(target.exists() for target in beside):
        return
    # Imported here: matplotlib takes half a second, which only drawing is worth.
    from syndiff_tasks.report import difference, figure, picture, product, template_page

    template_file = product.read_template(finished.path)
    ffi = fits_in.read_ffi(plan.path)
    preview = difference.preview(template_file, ffi.image, ffi.uncertainty)
    unit = unit_of(ffi.header)
    drawing, page = beside
    if not drawing.exists():
        with drawing.writing() as draft:
            figure.save(picture.draw(template_file, preview, plan.ccd.stem, unit), draft.path)
    if not page.exists():
        with page.writing() as draft:
            png = Path(drawing.path).read_bytes()
            template_page.write(draft.path, template_file, preview, png, finished.manifest(), unit)
