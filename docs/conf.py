"""Sphinx builds the pages: ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for generated

project = "softmax-bench"
copyright = "the authors of softmax-bench"  # noqa: A001 (Sphinx's name)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generated",
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
html_static_path = ["static"]
html_css_files = ["site.css"]
