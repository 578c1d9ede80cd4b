"""Settings of the documentation: pages in Markdown, and the reference from docstrings."""

from __future__ import annotations

import os
from importlib.metadata import version as version_of

project = "medjax"
author = "the medjax developers"
version = release = version_of("medjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path: list[str] = []

html_theme = "sphinx_book_theme"
html_title = "medjax"
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
html_show_sourcelink = False

# Pages without code cells are only read; notebooks are executed and kept by their content.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
# The kernels inherit these: pages show no progress bars, and do not depend on the builder's GPU.
os.environ["TQDM_DISABLE"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings name the types
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "py:obj"
napoleon_use_ivar = True
# The names of fields are looked up as if they were references, and many records have a path.
suppress_warnings = ["ref.python"]
# The names of fields are looked up as if they were references, and many records have a path.
suppress_warnings = ["ref.python"]
