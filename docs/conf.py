"""Sphinx builds the pages: ``make docs``."""

import os

project = "softmax-bench"
copyright = "the authors of softmax-bench"  # noqa: A001 (Sphinx's name)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
copybutton_prompt_text = "$ "

suppress_warnings = ["ref.python"]  # "bytes" is a type, and a field of two classes

html_theme = "furo"
html_title = "softmax-bench"
html_show_sphinx = False
os.environ["COLUMNS"] = "100"  # of the help that the reference shows
os.environ["NO_COLOR"] = "1"
