"""Files and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
FILE_LINES = 400
FUNCTION_LINES = 60


def tracked(*patterns: str) -> list[pathlib.Path]:
    """Files of the repository, those included that are about to be committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert files, f"nothing is tracked as {patterns}"
    return [file for file in files if file.exists()]


def test_no_source_file_is_longer_than_400_lines() -> None:
    files = tracked("kafka_jupyter/*.py", "scripts/*.py", "benchmarks/*.py", "labextension/src/*.ts")
    lines = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {}
    for file in tracked("kafka_jupyter/*.py", "scripts/*.py", "benchmarks/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (length := _length(node)) > FUNCTION_LINES:
                long[f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"] = length
    assert long == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1
