"""The input transformer is pure: lines in, lines out."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st

from kafka_jupyter.notebook.transformer import transform

CALL = "get_ipython().run_line_magic('kafka_train', 'digits --background')\n"


def test_the_first_line_becomes_a_call_and_the_rest_keeps_its_line_numbers():
    assert transform(["%%kafka_train digits --background\n", "x = 1\n", "model.fit(x)\n"]) == [CALL, "x = 1\n", "model.fit(x)\n"]


def test_options_with_quotes_and_braces_arrive_as_they_were_written():
    (line,) = transform(["%%kafka_train 'my {digits}' $x\n"])
    assert line == "get_ipython().run_line_magic('kafka_train', \"'my {digits}' $x\")\n"


def test_other_cells_are_left_alone():
    for first in ("%%time\n", "%%kafka_training\n", "%kafka_train x\n", "x = '%%kafka_train'\n", "%%kafka_train?\n", " %%kafka_train\n"):
        assert transform([first, "y\n"]) == [first, "y\n"]
    assert transform(["x = 1\n", "%%kafka_train digits\n"]) == ["x = 1\n", "%%kafka_train digits\n"]
    assert transform([]) == []


def test_help_leaves_the_body_out():
    assert transform(["%%kafka_train --help\n", "model.fit(x)\n"]) == ["get_ipython().run_line_magic('kafka_train', '--help')\n"]


@hypothesis.given(st.lists(st.text(alphabet="%kafka_train \"'{}$\\?-hx", max_size=30).map(lambda line: line + "\n"), max_size=4))
def test_transforming_twice_is_transforming_once(lines: list[str]):
    once = transform(lines)
    assert transform(once) == once
    assert len(once) in (len(lines), 1)
