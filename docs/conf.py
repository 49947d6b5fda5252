"""The site: Markdown pages, the API reference from docstrings, and the examples as a gallery.

sphinx-build -W docs docs/_build      from the root of the repository; then open
                                      docs/_build/index.html
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "tools"))

import api  # noqa: E402
import gallery  # noqa: E402
import links  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

project = "fusedstep"
html_show_copyright = False
version = release = metadata.version("fusedstep")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
default_role = "py:obj"  # `Optimizer` in a docstring is a link, and `lr` plain code
myst_heading_anchors = 4  # those that GitHub gives a heading
suppress_warnings = ["myst.xref_missing_html"]

autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
add_module_names = False

html_theme = "furo"
html_title = "fusedstep"
html_static_path = ["static"]
html_css_files = ["fusedstep.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def setup(app: Sphinx) -> None:
    for part in (api, gallery, links):
        part.setup(app)
