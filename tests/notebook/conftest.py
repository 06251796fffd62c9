"""A worker that the notebooks of a module share, and the environment of their kernels."""

from __future__ import annotations

import pathlib

import pytest

from tests.kafka.conftest import module_settings, shared
from tests.support.scene import Scene

__all__ = ["module_settings", "shared"]


@pytest.fixture(scope="module")
def kernel_env(shared: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: pathlib.Path = tmp_path_factory.mktemp("kernel")
    return shared.workers.environment(folder) | {"KAFKA_JUPYTER_OWNER": shared.settings.owner, "IPYTHONDIR": str(folder / "ipython")}
