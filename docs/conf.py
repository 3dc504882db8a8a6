"""Configuration of the documentation site: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import syndiff_tasks  # noqa: E402 - after the path

project = "syndiff_tasks"
author = "the authors of syndiff_tasks"
release = version = syndiff_tasks.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "generated_reference",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:obj", ".*")]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
# Links to files outside of docs/, such as luigi.cfg, lead to the repository.
suppress_warnings = ["myst.xref_missing"]
# The notebook is executed by tests/test_notebook.py; the site shows the outputs that are stored in it.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
numpydoc_show_class_members = False
copybutton_exclude = ".linenos, .gp, .go"

html_static_path = ["_static"]
html_css_files = ["site.css"]
# A dash stays a dash: options begin with two of them.
smartquotes = False

html_theme = "pydata_sphinx_theme"
html_title = "syndiff_tasks"
html_theme_options = {
    "show_prev_next": False,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
