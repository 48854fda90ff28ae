"""One spelling, the British one, in pages and docstrings; and no words that codespell knows to be typing errors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BRITISH = ROOT / "docs" / "_spelling" / "british.txt"
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *(ROOT / "docs").rglob("*.md")]
MODULES = sorted((ROOT / "torch_cntk").rglob("*.py"))
CODE = re.compile(r"^```.*?^```|``.*?``|`[^`\n]*`|--[\w-]+|https?://\S+", re.MULTILINE | re.DOTALL)
NAMES = re.compile(r"^ *\w+:|\w*[_.(=]\w*", re.MULTILINE)
"""In docstrings: arguments, which come before a colon, and what looks like code."""
TITLES = "regularization,neighbor"
"""Words in titles of papers and names of methods that we cite."""


def found_in(folder: Path) -> list[str]:
    options = ["-D", str(BRITISH), "-D", "-", "-L", TITLES]
    command = [sys.executable, "-m", "codespell_lib", *options, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.stderr == ""
    return found.stdout.splitlines()


def docstrings(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return NAMES.sub(" ", "\n\n".join(texts))


def test_one_spelling(tmp_path: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in PAGES} | {path: docstrings(path) for path in MODULES}
    for path, text in texts.items():
        copy = tmp_path / path.relative_to(ROOT).with_suffix(path.suffix + ".txt")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(CODE.sub(" ", text), encoding="utf-8")
    assert found_in(tmp_path) == []


def test_the_dictionary_finds_what_it_should(tmp_path: Path) -> None:
    """A test that cannot fail would say nothing."""
    (tmp_path / "page.txt").write_text("The colored center is recieved.\n")
    assert [line.split()[-1] for line in found_in(tmp_path)] == ["coloured", "centre", "received"]
