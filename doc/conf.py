"""Configuration of the documentation: ``sphinx-build -b html doc doc/_build/html``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import skae  # noqa: E402

# --- the project ------------------------------------------------------------------

project = "skae"
author = "The skae developers"
copyright = author
release = skae.__version__
version = release

# --- what Sphinx reads ------------------------------------------------------------

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "skae_docs",
]
default_role = "literal"
exclude_patterns = ["_build", "benchmarks", "**/README.*"]
templates_path = ["_templates"]

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "within_subsection_order": "ExampleTitleSortKey",
    "ignore_pattern": r"^(?!.*plot_).*\.py$",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "parallel": 2,
}

# --- what the reader sees ---------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["skae.css"]
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "skae"},
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
