"""What a card says went wrong: the sentence that helps, not the dozens of lines around it."""

from __future__ import annotations

import pytest

from kafka_jupyter.runs.view import essence

GRAPH = """Graph execution error:

Detected at node compile_loss/SparseSoftmaxCrossEntropyWithLogits defined at (most recent call last):
  File "/lib/keras/src/utils/traceback_utils.py", line 117, in error_handler

  File "/lib/keras/src/backend/tensorflow/trainer.py", line 399, in fit
    return super().fit()

Received a label value of 9 which is outside the valid range of [0, 9).  Label values: 9 9
\t [[{{node compile_loss/SparseSoftmaxCrossEntropyWithLogits}}]] [Op:__inference_multi_step_on_iterator_523]"""

ROOTS = """Graph execution error:

Detected at node A defined at (most recent call last):
<stack_traces unavailable>
Detected at node A defined at (most recent call last):
<stack_traces unavailable>
2 root error(s) found.
  (0) INVALID_ARGUMENT:  indices[0] = 12 is not in [0, 10)
\t [[{{node A}}]]
  (1) CANCELLED:  Function was cancelled before it was started
0 successful operations."""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (GRAPH, "Received a label value of 9 which is outside the valid range of [0, 9).  Label values: 9 9"),
        (
            ROOTS,
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  indices[0] = 12 is not in [0, 10)\n"
            "  (1) CANCELLED:  Function was cancelled before it was started\n0 successful operations.",
        ),
        ("Graph execution error:\n", "Graph execution error:"),
        ("Exception in call().\n\n\x1b[1mInput 0 has 10 values, not 64\x1b[0m\n", "Exception in call().\n\nInput 0 has 10 values, not 64"),
        ("expected 64\n    got 10", "expected 64\n    got 10"),
        ("", ""),
    ],
)
def test_of_a_message_the_sentence_that_helps_is_shown(message: str, shown: str) -> None:
    assert essence(message) == shown
