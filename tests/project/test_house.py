"""The plan of the house: where files may lie, who may import whom among the tests, and how long things may be."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "torch_cntk", ROOT / "tests"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, with those that it takes out of packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function behind its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return 0 if not body else (function.end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=name)
def test_no_test_imports_another_test(path: Any) -> None:
    assert not [found for found in imported(path) if any(part.startswith("test_") for part in found.split("."))]


def test_modules_lie_in_folders() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_are_short(path: Any) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_functions_are_short(path: Any) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {function.name: body_lines(function) for function in functions}
    assert {n: lines for n, lines in long.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}
