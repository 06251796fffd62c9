"""Where a run's notebook is for a page of this server."""

from __future__ import annotations

import pytest

from kafka_jupyter.server.details import path_within


@pytest.mark.parametrize(
    ("root", "notebook", "path"),
    [
        ("/home/ada", "/home/ada/vision/nets.ipynb", "vision/nets.ipynb"),
        ("/home/ada/", "nets.ipynb", "nets.ipynb"),
        ("/home/ada", "/home/bob/nets.ipynb", ""),
        ("/home/ada", "/home/ada-2/nets.ipynb", ""),
        ("/home/ada", "../bob/nets.ipynb", ""),
        ("/home/ada", "/home/ada/x/../../bob/nets.ipynb", ""),
        ("/home/ada", "/home/ada", ""),
        ("", "/home/ada/nets.ipynb", ""),
        ("/home/ada", "", ""),
        ("/home/ada", "/home/ada/a\0b.ipynb", ""),
    ],
)
def test_a_notebook_is_found_below_the_servers_folder_or_not_at_all(root: str, notebook: str, path: str) -> None:
    assert path_within(root, notebook) == path
