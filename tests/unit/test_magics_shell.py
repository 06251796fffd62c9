"""The magics in a real IPython shell, without Kafka."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import kafka_jupyter
from kafka_jupyter.errors import SettingsError

MAGICS = (
    "kafka_train", "kafka_runs", "kafka_attach", "kafka_stop", "kafka_cancel", "kafka_pause", "kafka_resume", "kafka_ctl", "kafka_retry",
    "kafka_dlq", "kafka_workers", "kafka_up", "kafka_down",
)  # fmt: skip


@pytest.fixture
def shell(tmp_path, monkeypatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KAFKA_JUPYTER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KAFKA_JUPYTER_AUTO_START", "false")
    made = InteractiveShell(colors="nocolor")
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "kafka_jupyter")
    yield made
    made.run_line_magic("unload_ext", "kafka_jupyter")
    made.history_manager.end_session()
    made.restore_sys_module_state()
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("name", MAGICS)
def test_every_magic_has_help_and_a_docstring(shell: InteractiveShell, capsys, name: str):
    assert shell.run_line_magic(name, "--help") is None
    shown = capsys.readouterr().out
    assert f"%{name}" in shown
    assert "Example:" in shown
    assert shell.find_line_magic(name).__doc__ == shown


@pytest.mark.parametrize("line", ["--nonsense", "'open quote", "digits extra words", "--on-interrupt maybe", "--queue-timeout soon"])
def test_bad_options_are_one_line_and_the_body_does_not_run(shell: InteractiveShell, capsys, line: str):
    result = shell.run_cell(f"%%kafka_train {line}\nran = True")
    assert type(result.error_in_exec).__name__ == "UsageError"
    assert "ran" not in shell.user_ns
    shown = capsys.readouterr()
    assert shown.err.startswith("UsageError: %%kafka_train: ")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize("line", ["digits --sasl-password=hunter2", "digits --token hunter2", "--api_key hunter2"])
def test_a_notebook_names_a_profile_and_no_secret(shell: InteractiveShell, capsys, line: str):
    shell.run_cell(f"%%kafka_train {line}\npass")
    said = capsys.readouterr().err
    assert said.startswith("UsageError: %%kafka_train: a notebook names a profile (--profile), never a secret")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%kafka_runs --state typo", "'typo' is no state of a run: queued, claimed, running"),
        ("%kafka_runs --limit -1", "'-1' is no whole number of at least 1"),
        ("%kafka_runs --limit many", "'many' is no whole number of at least 1"),
        ("%%kafka_train --queue-timeout -1", "'-1' is no number of seconds above 0"),
        ("%%kafka_train --queue-timeout nan", "'nan' is no number of seconds above 0"),
        ("%%kafka_train --queue-timeout inf", "'inf' is no number of seconds above 0"),
        ("%kafka_up --brokers -1", "'-1' is no whole number of 1 to 9"),
        ("%kafka_up --workers -1", "'-1' is no whole number of at least 0"),
        ("%kafka_ctl digits", "required: NAME=VALUE"),
        ("%kafka_ctl digits lr=fast", "'lr=fast': write a number behind the =, for example lr=1e-4"),
        ("%kafka_ctl digits momentum=1", "'momentum' cannot be changed while a run trains"),
        ("%kafka_retry digits --memory much", "write a size such as 500MiB or 4GiB"),
        ("%kafka_retry digits --label why", "'why' is no NAME=VALUE"),
        ("%kafka_dlq burn digits", "invalid choice: 'burn'"),
    ],
)
def test_values_out_of_range_are_one_line_that_says_what_is_allowed(shell: InteractiveShell, capsys, line: str, said: str):
    assert type(shell.run_cell(line).error_in_exec).__name__ == "UsageError"
    shown = capsys.readouterr().err
    assert shown.startswith("UsageError: %")
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_block_refuses_a_queue_timeout_that_is_none(seconds: float):
    with pytest.raises(SettingsError, match="seconds"), kafka_jupyter.train(queue_timeout=seconds):
        pass


def test_another_trust_than_those_there_are_is_refused_clearly(shell: InteractiveShell, capsys):
    result = shell.run_cell("%%kafka_train --trust all\nran = True")
    assert result.error_in_exec is not None
    assert "ran" not in shell.user_ns
    assert "argument --trust: invalid choice: 'all' (choose from" in capsys.readouterr().err


def test_a_cell_without_a_keras_fit_fails_with_one_line(shell: InteractiveShell, capsys):
    result = shell.run_cell("%%kafka_train digits\nx = 1")
    assert not result.success
    assert shell.user_ns["x"] == 1
    shown = capsys.readouterr()
    assert "No Keras `fit` was called here" in shown.err
    assert "tf_keras" in shown.err
    assert "scikit-learn" in shown.err
    assert "Traceback" not in shown.out + shown.err


def test_syntax_errors_and_exceptions_before_fit_are_the_normal_ones(shell: InteractiveShell, capsys):
    assert isinstance(shell.run_cell("%%kafka_train\nx = (").error_before_exec, SyntaxError)
    result = shell.run_cell("%%kafka_train\nfirst = 1\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    shown = capsys.readouterr()
    assert "No Keras `fit`" not in shown.err + shown.out
    assert "----> 3 1 / 0" in shown.out, "the traceback names the line as the person sees it"


def test_the_cell_runs_natively(shell: InteractiveShell, capsys):
    result = shell.run_cell(
        "%%kafka_train\nimport asyncio\nawait asyncio.sleep(0)\n!echo from the shell\n%time 1 + 1\n40 + 2", store_history=True
    )
    assert result.result == 42
    assert shell.user_ns["_"] == 42
    shown = capsys.readouterr().out
    assert "from the shell" in shown
    assert "Wall time" in shown
    shell.run_cell("%%kafka_train\n'quiet';", store_history=True)
    assert "quiet" not in capsys.readouterr().out


def test_capture_is_off_after_the_cell(shell: InteractiveShell):
    from kafka_jupyter.capture import patch

    shell.run_cell("%%kafka_train digits\n1 / 0")
    assert patch.current.get() is None
    shell.run_cell("get_ipython().run_cell('inner = 1')\nouter = 2")
    assert shell.user_ns["outer"] == 2


def test_a_cell_that_runs_another_cell_stays_on(shell: InteractiveShell):
    shell.run_cell(
        "%%kafka_train digits\nget_ipython().run_cell('x = 1')\nfrom kafka_jupyter.capture import patch\nseen = patch.current.get()"
    )
    assert shell.user_ns["seen"] is not None
    assert shell.user_ns["seen"].closed


def test_an_unreachable_kafka_is_one_line(shell: InteractiveShell, capsys):
    result = shell.run_cell("%kafka_runs")
    assert type(result.error_in_exec).__name__ == "UsageError"
    shown = capsys.readouterr().err
    assert "No Kafka broker answered" in shown
    assert "kafka-jupyter up" in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%kafka_train --b", ["--background"]),
        ("%%kafka_train --on-interrupt ", ["cancel", "detach", "stop"]),
        ("%kafka_stop --f", ["--force"]),
        ("%%kafka_train --trust ", ["code"]),
        ("%kafka_retry --ba", ["--batch-size"]),
        ("%kafka_retry --device ", ["any", "gpu"]),
        ("%kafka_ctl digits l", ["lr="]),
        ("%kafka_dlq re", ["redrive"]),
    ],
)
def test_options_are_completed(shell: InteractiveShell, line: str, expected: list[str]):
    with provisionalcompleter():
        found = {completion.text for completion in shell.Completer.completions(line, len(line))}
    assert sorted(set(expected) & found) == expected


def test_unloading_leaves_nothing_behind(shell: InteractiveShell):
    shell.run_line_magic("unload_ext", "kafka_jupyter")
    assert all(shell.find_line_magic(name) is None for name in MAGICS)
    assert not shell.run_cell("%%kafka_train\nx = 1").success
    shell.run_line_magic("load_ext", "kafka_jupyter")


def test_importing_and_loading_stay_light():
    code = """
import sys, time
start = time.process_time()
import kafka_jupyter
imported = time.process_time() - start
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
start = time.process_time()
shell.run_line_magic("load_ext", "kafka_jupyter")
loaded = time.process_time() - start
heavy = {"keras", "tensorflow", "confluent_kafka", "ipywidgets", "anywidget", "numpy"} & set(sys.modules)
print(imported, loaded, sorted(heavy))
"""
    best = [float("inf"), float("inf")]
    for _ in range(3):  # processor time, best of three: the machine may be busy
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        imported, loaded, heavy = done.stdout.split(maxsplit=2)
        assert heavy.strip() == "[]"
        best = [min(best[0], float(imported)), min(best[1], float(loaded))]
    assert best[0] <= 0.030
    assert best[1] <= 0.150
