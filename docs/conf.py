"""The site of docs/: `make docs`."""

from __future__ import annotations

import pytfmbs

project = "pytfmbs"
author = "the pytfmbs authors"
version = release = pytfmbs.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pytfmbs {release}"
exclude_patterns = ["images"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    "misc.highlighting_failure",  # Pygments lags behind MLIR
    "myst.header",  # dialect.md, made by TableGen, skips levels
    "docutils",  # docstrings are plain text, not reStructuredText
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
nitpicky = False
