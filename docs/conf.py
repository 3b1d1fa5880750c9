# ruff: noqa: INP001 - Sphinx reads it by its path; the docs are no package
"""Configure Sphinx: MyST Markdown, the Furo theme, search without a network, strict links (``make docs``)."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

project = "sweep"
author = "the authors of sweep"
extensions = ["myst_parser", "schema_pages"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 4  # page.md#heading, checked by the build
nitpicky = True  # a reference that does not resolve is a warning, and `make docs` makes warnings errors

html_theme = "furo"
html_title = "sweep"
html_search_scorer = str(DOCS / "_ext" / "scorer.js")  # pages for users before decisions and evidence
html_show_copyright = False
html_copy_source = False
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
