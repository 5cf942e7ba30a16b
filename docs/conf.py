"""Configuration of the documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "ovavel"
project_copyright = "the ovavel authors"
release = _PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/*.py"]
nitpicky = True
# The site is built without a network, so what other projects document is not linked; nor is what is internal here.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!ovavel\.).*"),
    (r"py:class", r"ovavel\..*\.(Manifest|GraphFiles|Access|PacketTap|Track|EconomyGate|EconomyPlan|Looking)"),
]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]

default_role = "code"  # a single backtick in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "ovavel"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4f0", "color-brand-content": "#7db4f0"},
}
linkcheck_timeout = 20


def setup(app: Sphinx) -> None:
    """Correct what autodoc and napoleon make of dataclasses and protocols."""
    attributes: dict[str, list[str]] = {}

    def keep(_app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if what == "attribute":
            attributes[name] = list(lines)

    def restore(_app: Sphinx, _what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if name in attributes:  # napoleon takes what stands before a colon for a type
            lines[:] = attributes.pop(name)

    def signature(
        _app: Sphinx, what: str, _name: str, obj: object, _options: object, arguments: str | None, returns: str | None
    ) -> tuple[str | None, str | None]:
        if what == "class" and getattr(obj, "_is_protocol", False):
            return "", None  # nobody constructs one
        return arguments and arguments.replace("<factory>", "..."), returns

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("autodoc-process-signature", signature)
