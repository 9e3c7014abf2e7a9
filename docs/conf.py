"""Settings of the site: `make docs` builds it into build/docs, every warning is an error, and nothing is fetched."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

project = "openmm_gnn"
author = "The openmm_gnn authors"
project_copyright = author
version = release = version("openmm-gnn")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "openmm_gnn_reference",
]
exclude_patterns = ["extensions"]

html_theme = "furo"
html_title = "openmm_gnn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The notebooks keep the results of their last execution; `make notebooks` executes them again.
nb_execution_mode = "off"
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp, .go"

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "extra_repr, forward, network_energy_and_forces, tiled_forces"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]
