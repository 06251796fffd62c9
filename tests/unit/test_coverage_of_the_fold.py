"""No line and no branch of the fold is there that its tests do not go through: what cannot be reached is not kept."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
FOLD = HERE.parents[1] / "kafka_jupyter" / "runs"


@pytest.mark.timeout(600)  # what is watched takes several times as long
def test_the_tests_of_the_fold_go_through_all_its_branches(tmp_path: pathlib.Path) -> None:
    files = [*sorted(HERE.glob("test_runs_*.py")), HERE / "test_fold_table.py"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environ["COVERAGE_FILE"] = str(tmp_path / "coverage")

    def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, cwd=HERE.parents[1], env=environ, capture_output=True, text=True, timeout=500)

    ran = coverage("run", "--branch", f"--source={FOLD}", "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files))
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    report = coverage("report", "--show-missing", "--skip-covered", "--fail-under=100", "--precision=2")
    assert report.returncode == 0, report.stdout + report.stderr
