"""The documentation: Markdown pages (MyST), numpydoc's docstrings, and examples that run while it is built."""

import os

import hybridclf

os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "hybridclf"
copyright = "the hybridclf contributors"
version = release = hybridclf.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "images/README.md", "pictures"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_title = "hybridclf"

default_role = "code"  # `x` in a docstring is code
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False  # the templates list them
autodoc_typehints = "none"  # they are in the docstrings, in words
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}  # scikit-learn makes these
autosummary_generate = True
autosummary_ignore_module_all = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py",  # all of them run
    "ignore_pattern": r"__init__\.py",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "within_subsection_order": "ExampleTitleSortKey",
}
suppress_warnings = ["config.cache"]
