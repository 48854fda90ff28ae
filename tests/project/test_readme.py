"""Every Python snippet of the README and of the docs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = snippets(README)
EVERY = {
    f"{page.relative_to(README.parent)}-{place}": snippet
    for page in PAGES
    for place, snippet in enumerate(snippets(page))
}


def test_readme_has_snippets() -> None:
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("name", EVERY)
def test_snippet_runs(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "import pandas" in EVERY[name]:
        pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    exec(compile(EVERY[name], name, "exec"), {})


def test_first_snippet_fills_the_photograph() -> None:
    scope: dict[str, Any] = {}
    exec(compile(SNIPPETS[0], "README.md", "exec"), scope)
    error = (scope["filled"].clamp(0, 1) - scope["image"]).square().mean()
    # 27 dB; the hole-ridden picture itself has about 9.
    assert float(error) < 2e-3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_at_files(page: Any) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^):]*)?\)", page.read_text()):
        if "_figures" in target:  # drawn when the site is built
            continue
        if "auto_tutorials" in target:  # made from these when the site is built
            target = f"{target.replace('auto_tutorials', 'tutorials').removesuffix('.html')}.py"
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in anchors, target + anchor
