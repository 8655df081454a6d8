"""Sphinx: `make docs` builds the pages, with warnings as errors and nothing from other hosts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from splatforge import __version__

project = "splatforge"
copyright = "the splatforge authors, Apache License 2.0"
version = release = __version__
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.graphviz", "from_code"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"splatforge {__version__}"
html_static_path = ["style"]
html_css_files = ["wide.css"]
html_copy_source = False
graphviz_output_format = "svg"

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the docstrings, with their shapes and units
autodoc_default_options = {"members": True}
default_role = "code"
nitpicky = False
