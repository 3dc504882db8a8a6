"""HTML pages from the Jinja2 templates of this package, every value escaped."""

import base64
import functools

import jinja2


@functools.cache
def _environment():
    return jinja2.Environment(
        loader=jinja2.PackageLoader("syndiff_tasks.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name, **values):
    """Return a page.

    Parameters
    ----------
    name : str
        File name of a template in the folder ``templates``.
    **values
        What the template shows; text is escaped.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    jinja2.UndefinedError
        If the template uses a value that is not given.
    """
    return _environment().get_template(name).render(values)


def data_uri(png):
    """Return the address under which a page finds a picture inside itself.

    Parameters
    ----------
    png : bytes
        Content of a PNG file.

    Returns
    -------
    str
        For the `src` of an `img`.
    """
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
