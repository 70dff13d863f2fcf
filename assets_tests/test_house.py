"""The house's rules, held by machine: sizes, imports, docstrings, what an import may load."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pathassets"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_FUNCTION_LINES = 10


def _functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


def test_functions_are_small():
    functions = [function for path in FILES for function in _functions(path)]
    too_long = [(name, lines) for name, lines in functions if lines > MAX_FUNCTION_LINES]
    assert too_long == []
    assert statistics.median(lines for _, lines in functions) <= MAX_MEDIAN_FUNCTION_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_belongs_in_it(path: Path):
    assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 20


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(run.stdout.splitlines())


def test_importing_the_package_imports_nothing_else():
    assert not {name for name in _loaded_by("import pathassets") if name.startswith("pathassets.")}


def test_dagster_processes_do_not_pay_for_torch_openslide_or_scanpy():
    loaded = _loaded_by("import pathassets.definitions as d; d.defs()")
    heavy = {"torch", "openslide", "scanpy", "dash", "timm", "zarr", "anndata", "plotly", "duckdb", "skimage"}
    heavy |= {"transformers", "tokenizers", "sentencepiece"}
    assert loaded & heavy == set()


def test_public_names_are_importable():
    import pathassets

    assert {name for name in pathassets.__all__ if not hasattr(pathassets, name)} == set()
