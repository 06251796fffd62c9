"""A saved notebook gets the final outputs of its runs, and nothing else of its text changes. Hostile ones are told from good ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW
from kafka_jupyter.outputs.finish import RUN_LIMIT, Did, Finished, finish, read
from kafka_jupyter.outputs.widgets import OURS
from tests.support.saved import RUN, WIDGET_STATE, cell, display, final, live, log, notebook, rows, state

WIDE = "wide-b81c00000000"
PLOT = display({"application/vnd.plotly.v1+json": {"data": [1.50, -0.0, 1e5]}, "text/html": ["<div>\n", "é\u2028</div>"]})
PRINTED = {"name": "stdout", "output_type": "stream", "text": ["1\n"]}
Layout = Callable[[Any], str]


def lines(document: dict[str, Any]) -> dict[str, Any]:
    """As Jupyter saves texts: as lists of lines."""
    split = copy.deepcopy(document)
    for each in split["cells"]:
        for output in each["outputs"]:
            data = output.get("data", {})
            data |= {mime: text.splitlines(True) for mime, text in data.items() if isinstance(text, str)}
    return split


LAYOUTS: dict[str, Layout] = {
    "Jupyter's": lambda document: json.dumps(lines(document), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
    "sorted, two spaces, no last line break": lambda document: json.dumps(lines(document), indent=2, sort_keys=True, ensure_ascii=False),
    "tabs, texts as strings": lambda document: json.dumps(document, indent="\t", ensure_ascii=False),
    "ASCII": lambda document: json.dumps(lines(document), indent=1) + "\n",
    "one line": lambda document: json.dumps(document, ensure_ascii=False),
    "one line without spaces": lambda document: json.dumps(lines(document), separators=(",", ":"), ensure_ascii=False),
    "line ends of Windows": lambda document: json.dumps(lines(document), indent=1, sort_keys=True).replace("\n", "\r\n"),
}


def done(document: dict[str, Any], *states: dict[str, Any]) -> Finished:
    return finish(read(LAYOUTS["Jupyter's"](document)), log(*states))


def did(finished: Finished) -> list[str]:
    return [f"{told.cell}.{told.output} {told.did}" for told in finished.outputs]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_outputs_of_ended_runs_change_whoever_wrote_the_file(layout: str) -> None:
    before = notebook(cell("é", PRINTED, live(), PLOT), cell("two", live(WIDE)), cell("three", final()), cell("four", PLOT), minor=4)
    after = copy.deepcopy(before)
    after["cells"][0]["outputs"][1] = final()
    text = LAYOUTS[layout](before)
    finished = finish(read(text), log(state(worker="box"), state("RUNNING", WIDE)))
    assert finished.text == LAYOUTS[layout](after)
    assert did(finished) == ["1.2 finished", "2.1 still running", "3.1 already final"]
    assert finished.text != text
    assert finish(read(finished.text), log(state("RUNNING", WIDE))).text == finished.text, "what is final stays"


def test_the_result_is_a_notebook_that_shows_the_result() -> None:
    finished = done(notebook(cell("one", live())), state())
    result = nbformat.reads(finished.text, as_version=4)
    nbformat.validate(result)
    (output,) = result.cells[0].outputs
    assert output.data["text/plain"] == "digits 3f2a  SUCCEEDED  3 epochs in 0:03  val_loss 0.3333 @3"
    assert [row["epoch"] for row in output.data[MIME]["runs"][0]["rows"]] == [0, 1, 2]


def test_odd_white_space_and_numbers_of_the_rest_stay_to_the_byte() -> None:
    text = '{ "nbformat" :4,"x":[1.50,\t-0.0,1E5, "\\u00e9\\/"],\n\n"cells":[{"outputs":[%s ,  {"data":{}}],"cell_type":"code"}, 7 ]}  \n'
    finished = finish(read(text % json.dumps(live())), log(state()))
    assert finished.text == text % json.dumps(final())


def test_an_output_of_several_runs_is_final_when_all_have_ended() -> None:
    document = notebook(cell("k-fold", live(RUN, WIDE)))
    assert did(done(document, state(), state("PAUSED", WIDE))) == ["1.1 still running"]
    assert did(done(document, state("RUNNING"))) == ["1.1 unknown run"]
    finished = done(document, state("FAILED"), state(run=WIDE))
    assert did(finished) == ["1.1 finished"]
    assert finished.outputs[0].why == f"{RUN} FAILED, {WIDE} SUCCEEDED"
    assert [run["run_id"] for run in json.loads(finished.text)["cells"][0]["outputs"][0]["data"][MIME]["runs"]] == [RUN, WIDE]


def test_where_nothing_is_to_be_done_the_text_is_the_same_and_says_why() -> None:
    text = LAYOUTS["Jupyter's"](notebook(cell("one", live()), cell("two", live(WIDE)), cell("three", PLOT)))
    finished = finish(read(text), log(state("RUNNING", WIDE)))
    assert finished.text == text
    assert [(told.did, told.why) for told in finished.outputs] == [
        (Did.UNKNOWN, f"{RUN}: not in this log"),
        (Did.RUNNING, f"{WIDE} RUNNING"),
    ]


def test_the_log_is_asked_for_nothing_where_all_is_final() -> None:
    def lookup(run_id: str) -> None:
        raise AssertionError(run_id)

    assert did(finish(read(json.dumps(notebook(cell("one", final(RUN, WIDE))))), lookup)) == ["1.1 already final"]


@pytest.mark.parametrize("lacking", ["rows", "terminal", "text/html", "text/plain"])
def test_what_only_looks_final_is_finished(lacking: str) -> None:
    poor = final()
    for holder in (poor["data"], poor["data"][MIME]["runs"][0], poor["data"][MIME]["runs"][0]["state"]):
        holder.pop(lacking, None)
    finished = done(notebook(cell("one", poor)), state())
    assert did(finished) == ["1.1 finished"]
    assert json.loads(finished.text)["cells"][0]["outputs"][0]["data"].keys() == final()["data"].keys()


# --- the widget


def model(layout: str, kind: str = OURS) -> dict[str, Any]:
    return {"model_name": "AnyModel", "state": {"_anywidget_id": kind, "layout": f"IPY_MODEL_{layout}", "rows": []}}


def layout(**fields: Any) -> dict[str, Any]:
    return {"model_name": "LayoutModel", "state": fields}


def view(model_id: str) -> dict[str, Any]:
    return display({WIDGET_VIEW: {"model_id": model_id, "version_major": 2, "version_minor": 0}, "text/plain": "IntSlider()"})


SLIDER = {"s": model("sl", "other"), "sl": layout(width="1.50")}


def models_of(finished: Finished) -> Any:
    return json.loads(finished.text)["metadata"].get("widgets", {WIDGET_STATE: {"state": None}})[WIDGET_STATE]["state"]


def test_the_widget_goes_and_what_it_alone_used() -> None:
    card = live(model="w")
    card["metadata"] = {WIDGET_VIEW: {"colab": 1}, "jupyter": {"source_hidden": True}}
    widgets = {"s": SLIDER["s"], "w": model("wl"), "wl": layout(), "sl": SLIDER["sl"]}
    before = notebook(cell("one", card), cell("two", view("s")), widgets=widgets)
    after = notebook(cell("one", final()), cell("two", view("s")), widgets=SLIDER)
    after["cells"][0]["outputs"][0]["metadata"] = {"jupyter": {"source_hidden": True}}
    assert done(before, state()).text == LAYOUTS["Jupyter's"](after)


def test_no_empty_widget_state_is_left() -> None:
    before = notebook(cell("one", live(model="w")), widgets={"w": model("wl"), "wl": layout()})
    assert done(before, state()).text == LAYOUTS["Jupyter's"](notebook(cell("one", final())))
    before["metadata"]["widgets"]["other"] = {}
    assert json.loads(done(before, state()).text)["metadata"]["widgets"] == {"other": {}}


STAYS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "another output shows it": ([view("w")], {"w": model("wl"), "wl": layout()}),
    "a card that goes on shows it": ([live(WIDE, model="w")], {"w": model("wl"), "wl": layout()}),
    "another model names it": ([], {"w": model("wl"), "wl": layout(), "box": layout(children=["IPY_MODEL_w"])}),
    "an Output widget shows it": ([], {"w": model("wl"), "wl": layout(), "out": layout(outputs=[view("w")])}),
    "it is not ours": ([], {"w": model("wl", "ipympl.Canvas"), "wl": layout()}),
    "it is junk": ([], {"w": 7, "wl": None}),
}


@pytest.mark.parametrize("why", STAYS)
def test_a_widget_that_somebody_else_may_need_stays(why: str) -> None:
    outputs, widgets = STAYS[why]
    finished = done(notebook(cell("one", live(model="w")), cell("two", *outputs), widgets=widgets), state(), state("RUNNING", WIDE))
    assert did(finished)[0] == "1.1 finished"
    assert models_of(finished) == widgets


def test_a_layout_that_others_use_stays_when_the_card_goes() -> None:
    widgets = {"w": model("shared"), "shared": layout(), "s": model("shared", "other")}
    finished = done(notebook(cell("one", live(model="w")), widgets=widgets), state())
    assert models_of(finished).keys() == {"shared", "s"}


# --- hostile notebooks

NO_NOTEBOOKS: dict[str, tuple[str, str]] = {
    "nothing": ("", "no JSON that can be read"),
    "text": ("hello", "no JSON that can be read"),
    "cut": (json.dumps(notebook(cell("one", live())))[:-9], "no JSON that can be read"),
    "more behind": (json.dumps(notebook()) + "{}", "no JSON that can be read .*Extra data"),
    "a merge conflict": ('{\n<<<<<<< HEAD\n "cells": []\n}', "no JSON that can be read .*line 2"),
    "a byte order mark": ("\ufeff" + json.dumps(notebook()), "no JSON that can be read"),
    "deep": ('{"cells": [' + "[" * 100_000, "nested too deeply"),
    "a number without end": ('{"nbformat": ' + "1" * 5000 + "}", "no JSON that can be read"),
    "cells twice": (json.dumps(notebook())[:-1] + ', "cells": []}', "twice"),
    "a list": ("[]", "no notebook"),
    "a number": ("4", "no notebook"),
    "another object": ('{"name": "x"}', "no notebook"),
    "no cells": ('{"nbformat": 4}', "no notebook"),
    "cells that are none": ('{"nbformat": 4, "cells": {}}', "no notebook"),
    "a version that is none": ('{"nbformat": true, "cells": []}', "no notebook"),
    "nbformat 3": ('{"nbformat": 3, "worksheets": []}', "nbformat 3: open it in JupyterLab and save it"),
    "nbformat 5": ('{"nbformat": 5, "cells": []}', "nbformat 5, and this kafka_jupyter knows 4"),
}


@pytest.mark.parametrize("kind", NO_NOTEBOOKS)
def test_what_is_no_notebook_is_refused_with_the_way_out(kind: str) -> None:
    text, why = NO_NOTEBOOKS[kind]
    with pytest.raises(ValueError, match=why):
        read(text)


JUNK: dict[str, tuple[Any, str]] = {
    "no object": (["runs"], "names no runs"),
    "nothing": (None, "names no runs"),
    "no runs": ({"v": 1}, "names no runs"),
    "runs that are no list": ({"v": 1, "runs": {"run_id": RUN}}, "names no runs"),
    "an empty list": ({"v": 1, "runs": []}, "names no runs"),
    "a newer version": ({"v": 2, "runs": [{"run_id": RUN}]}, "not of version 1"),
    "a version that is none": ({"v": True, "runs": [{"run_id": RUN}]}, "not of version 1"),
    "a run that is none": ({"v": 1, "runs": [7]}, "no run id"),
    "an id that is no text": ({"v": 1, "runs": [{"run_id": 7}]}, "no run id"),
    "an id with HTML": ({"v": 1, "runs": [{"run_id": "<img src=x onerror=alert(1)>"}]}, "no run id"),
    "an id with a line break": ({"v": 1, "runs": [{"run_id": RUN + "\n"}]}, "no run id"),
    "10,000 runs": ({"v": 1, "runs": [{"run_id": f"digits-{i:012x}"} for i in range(10_000)]}, f"10000 runs, more than {RUN_LIMIT}"),
}


@pytest.mark.parametrize("kind", JUNK)
def test_an_output_with_junk_in_it_is_left_alone_and_hinders_no_other(kind: str) -> None:
    junk, why = JUNK[kind]
    before = notebook(cell("one", display({MIME: junk, "text/plain": "x"})), cell("two", live()))
    after = notebook(cell("one", display({MIME: junk, "text/plain": "x"})), cell("two", final()))
    finished = done(before, state())
    assert did(finished) == ["1.1 not readable", "2.1 finished"]
    assert why in finished.outputs[0].why
    assert "<" not in finished.outputs[0].why
    assert finished.text == LAYOUTS["Jupyter's"](after)


ODD_CELLS: list[Any] = [
    7,
    {},
    {"outputs": 7},
    {"outputs": {"data": live()["data"]}},
    {"outputs": [7, [], {}, {"data": []}, {"data": 7}, {"data": {}}, {"metadata": 7}]},
]


def test_cells_and_outputs_that_are_none_are_passed_over() -> None:
    document = {"cells": [*ODD_CELLS, {"outputs": [live()]}], "metadata": 7, "nbformat": 4}
    finished = finish(read(json.dumps(document)), log(state()))
    assert did(finished) == [f"{len(ODD_CELLS) + 1}.1 finished"]
    assert finished.text == json.dumps({**document, "cells": [*ODD_CELLS, {"outputs": [final()]}]})


@pytest.mark.parametrize("junk", [7, {}, {WIDGET_STATE: 7}, {WIDGET_STATE: {"state": 7}}, {WIDGET_STATE: {"state": {"": model("w")}}}])
def test_a_widget_state_that_is_none_is_left_alone(junk: Any) -> None:
    for card in (live(model="w"), live()):
        card["metadata"] = 7
        card["data"].setdefault(WIDGET_VIEW, {"model_id": ["w"]})
        document = notebook(cell("one", card))
        document["metadata"]["widgets"] = junk
        finished = done(document, state())
        assert did(finished) == ["1.1 finished"]
        assert json.loads(finished.text)["metadata"]["widgets"] == junk


def test_an_entry_that_is_nested_deeply_is_replaced_like_any_other() -> None:
    card = live()
    deep = "x"
    text = json.dumps(notebook(cell("one", card))).replace('"cursor": ""', f'"cursor": {"[" * 500}"{deep}"{"]" * 500}')
    finished = finish(read(text), log(state()))
    assert finished.text == json.dumps(notebook(cell("one", final())))


def test_a_run_that_is_named_twice_is_shown_once() -> None:
    assert done(notebook(cell("one", live(RUN, RUN))), state()).text == LAYOUTS["Jupyter's"](notebook(cell("one", final())))


def test_hostile_text_of_the_log_stays_text() -> None:
    evil = "</script><script>alert(1)</script>\u2028\x1b[31m"
    card = json.loads(done(notebook(cell("one", live())), state(name=evil, worker=evil)).text)["cells"][0]["outputs"][0]["data"]
    assert "<script" not in "".join(card["text/html"])
    assert card[MIME]["runs"][0]["state"]["name"] == evil


def test_a_large_notebook_is_read_once_and_quickly_enough() -> None:
    picture = display({"image/png": "iVBOR" * 200_000})
    document = notebook(*(cell(f"{i}", picture) for i in range(50)), cell("card", live()))
    text = json.dumps(document)
    assert len(text) > 50_000_000
    finished = finish(read(text), log(state()))
    assert did(finished) == ["51.1 finished"]
    assert len(finished.text) - len(text) == len(json.dumps(final())) - len(json.dumps(live()))


def test_a_thousand_runs_of_one_output_are_finished() -> None:
    runs = [f"digits-{i:012x}" for i in range(RUN_LIMIT)]
    finished = finish(read(json.dumps(notebook(cell("one", live(*runs))))), log(*(state(run=run) for run in runs)))
    assert did(finished) == ["1.1 finished"]
    assert finished.outputs[0].why.endswith(f" and {RUN_LIMIT - 3} more")
    assert len(rows()) * RUN_LIMIT == finished.text.count('"val_loss"')
