"""Every Python snippet of the README runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_readme_has_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_readme_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})


def test_first_snippet_fills_the_photograph():
    scope = {}
    exec(compile(SNIPPETS[0], "README.md", "exec"), scope)
    error = (scope["filled"].clamp(0, 1) - scope["image"]).square().mean()
    # 27 dB; the hole-ridden picture itself has about 9.
    assert float(error) < 2e-3


def test_links_point_at_files():
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
