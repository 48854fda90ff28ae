"""Who has no gradio misses the page and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import torch_cntk

PACKAGE = Path(torch_cntk.__file__).parent


def test_one_module_imports_gradio() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "gradio" for name in names):
                users.add(str(path.relative_to(PACKAGE)))
    assert users == {"app/page.py"}


def test_the_page_is_imported_when_it_is_shown() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert not (isinstance(node, ast.ImportFrom) and node.module == "torch_cntk.app.page"), path
