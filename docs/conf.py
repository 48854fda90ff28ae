"""How the site is built: `sphinx-build -W docs OUT`, with `pip install '.[docs]'`; no network is needed."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import runpy
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
HERE = Path(__file__).parent

project = "torch_cntk"
author = "The torch_cntk authors"
project_copyright = "the torch_cntk authors, MIT licence"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["tutorials/README.*", "tutorials/*.py"]

html_theme = "furo"
html_title = "torch_cntk"
html_static_path: list[str] = []

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# torch.nn.Module has some seventy methods of its own: torch's pages describe them.
autodoc_inherit_docstrings = False


def local_inventory(name: str, uri: str) -> tuple[str, str]:
    """An intersphinx mapping that needs no network: the names that we link to stand in a text file.

    Each line of `docs/_inventories/NAME.txt` is "name domain:role page"; intersphinx reads the same in its own format.
    """
    text = (HERE / "_inventories" / f"{name}.txt").read_text()
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    body = "".join(f"{title} {role} 1 {page} -\n" for title, role, page in lines)
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path = HERE / "_inventories" / f"{name}.inv"
    path.write_bytes(head.encode() + zlib.compress(body.encode()))
    return uri, str(path)


intersphinx_mapping = {"torch": local_inventory("torch", "https://docs.pytorch.org/docs/stable/")}

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": "/",
    "download_all_examples": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "min_reported_time": 1000,
    "reference_url": {"torch_cntk": None},
    "within_subsection_order": "FileNameSortKey",
}


def skip_torch_members(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out what a class takes over from torch and from Python, and the constants of modules."""
    del app, options
    if what == "module" and not callable(obj):
        return True
    module = getattr(inspect.unwrap(obj) if callable(obj) else obj, "__module__", None) or ""
    if name != "forward" and module.split(".")[0] in {"torch", "builtins", "enum", "abc", "collections", "typing"}:
        return True
    return skip or None


_STAR = re.compile(r"(?<![\w*\\])(\*{1,2})(?=[\w(])(?![^*]*\w\1(?!\w))")
"""A star, or two, before a word, that no other star behind a word closes."""


def escape_stars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep the star of shapes such as [channels, *size] and the bars of |x|: reStructuredText would use them up."""
    del app, what, name, obj, options
    for place, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [_STAR.sub(lambda star: r"\*" * len(star[0]), part).replace("|", r"\|") for part in parts[::2]]
        lines[place] = "``".join(parts)


def setup(app: object) -> None:
    """Draw the figures, and tell Sphinx what to leave out."""
    importlib.import_module("torch_cntk")
    # By its path: docs is no package.
    runpy.run_path(str(HERE / "figures.py"))["draw"](HERE / "_figures")
    app.connect("autodoc-skip-member", skip_torch_members)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", escape_stars)  # type: ignore[attr-defined]
