"""The site has every public name and every page, and names commands that exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import runpy
from pathlib import Path
from types import FunctionType

import pytest

import torch_cntk as tc

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MODULES = {"baselines", "drug_response", "features", "finite", "images", "matrices", "operators", "plotting"}
MODULES |= {"distributed", "presets", "priors", "zoo"}


def documented() -> set[str]:
    """Names in the summaries of the reference, with the module that they are read from."""
    found = set()
    for page in (DOCS / "reference").glob("*.md"):
        module = ""
        for line in page.read_text().splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif re.fullmatch(r"   \w+", line):
                found.add(f"{module}.{line.strip()}")
    return found


def test_every_public_name_is_in_the_reference() -> None:
    names = {name.rsplit(".", 1)[1] for name in documented()}
    assert set(tc.__all__) - MODULES - names == set()
    described = ("images", "priors", "solvers", "matrices", "finite", "conversion", "zoo", "distributed", "operators")
    for module in described:
        package = importlib.import_module(f"torch_cntk.{module}")
        public = {name for name in package.__all__ if isinstance(getattr(package, name), type | FunctionType)}
        assert public - names == set(), module


@pytest.mark.parametrize("name", sorted(documented()))
def test_names_of_the_reference_exist_and_are_described(name: str) -> None:
    module, attribute = name.rsplit(".", 1)
    found = getattr(importlib.import_module(module), attribute)
    assert found.__doc__, name


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {"index"}
    for page in PAGES:
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in tree.splitlines():
                if line and not line.startswith(":"):
                    listed.add(str((page.parent / line).relative_to(DOCS)))
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} <= listed


def test_figures_are_drawn(tmp_path: Path) -> None:
    shown = {name for page in PAGES for name in re.findall(r"_figures/(\w+)\.svg", page.read_text())}
    written = runpy.run_path(str(DOCS / "figures.py"))["draw"](tmp_path)
    assert {path.stem for path in written} == shown
    assert all(path.read_text().rstrip().endswith("</svg>") for path in written)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    for module in re.findall(r"python -m (benchmarks(?:\.\w+)*)", page.read_text()):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"python (examples/\w+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), script


def test_changelog_and_citation_name_one_version() -> None:
    """The newest section of the changelog, which has a date once it is released, is the version to cite."""
    title = re.search(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert title and cited and title[1] == cited[1]
