"""Settings of the documentation: pages in Markdown, and the reference from docstrings."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "medjax"
author = "The medjax authors"
version = release = version_of("medjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "reference",
    "table_bars",
]
exclude_patterns = ["_build"]
templates_path: list[str] = []

html_theme = "sphinx_book_theme"
html_title = "medjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],  # the side bar has the search
}
html_show_sourcelink = False
html_domain_indices = False  # the reference lists its few modules
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_math_renderer = "mathml"  # MathJax would be loaded from the network

# Pages without code cells are only read; notebooks are executed and kept by their content.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True  # what a cell prints is one block
# The kernels inherit these: pages show no progress bars, and do not depend on the builder's GPU.
os.environ["TQDM_DISABLE"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings name the types
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"  # the contents of a page are narrow
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "py:obj"
# Docstrings name types and fields in words, and modules that are not public; all other names of
# medjax must be found.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!medjax).*"),
    (r"py:obj", r"medjax\.(checkpoint|data|optimizer|runtime|state|target|text\.tagging)(\..*)?"),
    (r"py:obj", r"medjax\.(components\.relation_data\..*|ROW_MASK)"),
]
# The names of fields are looked up as if they were references, and many records have a path.
suppress_warnings = ["ref.python"]
