"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

from __future__ import annotations

import warnings

import flowalign

project = "flowalign"
author = "The flowalign developers"
copyright = author
release = flowalign.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["results", "_build", "experiments", "auto_examples/**/*.ipynb"]
suppress_warnings = ["config.cache", "myst.xref_missing"]  # decisions link to files of the tree
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "flowalign"
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
html_show_sourcelink = False
# Pages without pages below them: the sidebar would be empty, and tables need its place.
html_sidebars = {
    page: []
    for page in (
        "quickstart", "theory", "benchmark", "results", "comparison", "claims", "performance",
        "faq", "glossary", "contributing", "changelog",
    )
}  # fmt: skip
numpydoc_show_class_members = False
autodoc_typehints = "none"
autosummary_generate = True
myst_heading_anchors = 2
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
}
# Matplotlib without a window says so when an example shows its figure.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
