"""What the documents claim has a test behind it."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def test_every_test_that_a_document_names_is_there() -> None:
    tests = {name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8"))}
    for document in (ROOT / "docs").glob("*.md"):
        named = set(re.findall(r"`(test_\w+)`", document.read_text("utf-8")))
        assert named <= tests, f"{document.name}: {sorted(named - tests)}"
    assert "test_it_ends_as_if_it_had_not_been_cut" in tests
