"Sphinx configuration of the site; docs/build.py prepares the pages and runs it. Nothing here needs the network."
import importlib
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx import addnodes
from sphinx.util import logging

here = Path(__file__).parent
settings = ConfigParser(delimiters=["="])
settings.read(here.parent / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]

project = cfg["title"]
author = cfg["author"]
copyright = cfg["copyright"]
version = release = cfg["version"]
language = "en"

extensions = ["myst_nb"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["notebooks/**"]  # offered for download, not rendered a second time
suppress_warnings = []  # the build turns every warning into an error

# notebooks are shown as they are stored: no cell runs here
highlight_language = "none"  # a fence that names no language is no Python
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_ipywidgets_js = {}  # would be fetched from other hosts
nb_code_prompt_show = "Source"
nb_code_prompt_hide = "Source"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "tasklist", "html_image", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

add_module_names = False
toc_object_entries_show_parents = "hide"
modindex_common_prefix = ["paper_digest."]
html_domain_indices = False

html_theme = "sphinx_book_theme"
html_title = cfg["title"]
html_static_path = [str(here / "_static")]
html_favicon = str(here / "_static" / "mark.svg")
html_context = {"default_mode": "auto"}
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_permalinks_icon = "#"
html_theme_options = {
    "home_page_in_toc": False,
    "logo": {"text": cfg["title"], "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg"},
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_repository_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "collapse_navigation": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_content_items": ["copyright"],
}
html_math_renderer = "mathml"


def mathml(translator, node) -> None:
    "Formulas become MathML at build time, so that no script has to be fetched to show them."
    block = isinstance(node, nodes.math_block)
    try:
        markup = latex2mathml.tex2mathml(node.astext(), as_block=block)
    except (ValueError, SyntaxError) as err:
        logging.getLogger(__name__).warning("formula %r: %s", node.astext(), err, location=node)
        raise nodes.SkipNode from None
    translator.body.append(f'<div class="math">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def qualify(app, doctree) -> None:
    "A type in a signature leads to the class its module means, where several modules have one of that name."
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") == "py" and node.get("refspecific") is False:
            del node["refspecific"]  # Sphinx takes its presence for a wish to search everywhere
            module = importlib.import_module(node["py:module"]) if node.get("py:module") else None
            found = getattr(module, node["reftarget"], None)
            if isinstance(found, type):
                node["reftarget"] = f"{found.__module__}.{found.__qualname__}"


def setup(app):
    app.connect("doctree-read", qualify)
    app.add_html_math_renderer("mathml", inline_renderers=(mathml, None), block_renderers=(mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
