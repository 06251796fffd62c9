"""What `%load_ext kafka_jupyter` puts into a shell, and how a cell's session begins and ends."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from kafka_jupyter.capture import host
from kafka_jupyter.capture.options import Options, Place
from kafka_jupyter.notebook import completion, transformer
from kafka_jupyter.notebook.magics import KafkaMagics
from kafka_jupyter.notebook.parsing import parsers

if TYPE_CHECKING:
    from kafka_jupyter.capture.session import Session
    from kafka_jupyter.capture.view import View
    from kafka_jupyter.client import TrainingRun
    from kafka_jupyter.notebook.live import CellView


@dataclasses.dataclass
class Cell:
    """A cell that runs. Cells may run inside one another (`%%capture`), so they are a stack."""

    info: Any
    session: Session | None = None
    views: list[CellView] = dataclasses.field(default_factory=list)
    blocks: dict[bool, CellView] = dataclasses.field(default_factory=dict)  # by whether they wait: those of a cell share one card
    shown: set[str] = dataclasses.field(default_factory=set)  # runs on a card of this cell


class Extension:
    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self._cells: list[Cell] = []
        self._open: list[CellView] = []  # cards of runs that have not ended
        self._loading = False  # in the cell that loads us, of which IPython has told us nothing

    def load(self) -> None:
        shell = self.shell
        shell.input_transformers_cleanup.append(transformer.transform)
        shell.register_magics(KafkaMagics(shell, self))
        for name, parser in parsers().items():
            for key in (f"%{name}", f"%%{name}") if name == transformer.MAGIC else (f"%{name}",):
                shell.set_hook("complete_command", completion.completer(parser), str_key=key)
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)
        host.use(self)
        self._loading = not in_kernel(shell) or bool(request_of(shell))
        if in_kernel(shell):
            # By name: the class is imported when the first run is.
            formatter = shell.display_formatter.ipython_display_formatter
            formatter.for_type_by_name("kafka_jupyter.client.handle", "TrainingRun", self.show)

    def unload(self) -> None:
        shell = self.shell
        shell.input_transformers_cleanup.remove(transformer.transform)
        shell.events.unregister("pre_run_cell", self._before)
        shell.events.unregister("post_run_cell", self._after)
        host.use(host.Script())
        for name in parsers():
            for kind in ("line", "cell"):
                shell.magics_manager.magics[kind].pop(name, None)

    def begin(self, options: Options) -> None:
        """From here to its end, the cell's `fit`s are captured."""
        from kafka_jupyter.capture import patch
        from kafka_jupyter.capture.session import Session

        settings = options.settings()
        patch.install()
        place = self.place()
        session = Session(options, settings, self.view(place, not options.background), place)
        cell = self._cell()
        if cell is not None:
            cell.session = session
        patch.current.set(session)

    def show(self, run: TrainingRun) -> None:
        """A run's card; nothing where this cell shows it already."""
        cell = self._cell()
        if cell is None or not in_kernel(self.shell):
            print(run.summary())
        elif run.id not in cell.shown:
            self._card(cell, headless(self.shell), waiting=False).show(run)

    # --- the host of captured `fit`s

    def place(self) -> Place:
        cell = self._cell()
        if cell is None:
            return Place(key="")
        request = request_of(self.shell)
        source = str(getattr(cell.info, "raw_cell", "") or request.get("content", {}).get("code", ""))
        cell_id = str(getattr(cell.info, "cell_id", "") or request.get("metadata", {}).get("cellId", ""))
        return Place(
            key=cell_id or hashlib.sha256(source.encode()).hexdigest(),
            notebook=os.environ.get("JPY_SESSION_NAME", ""),
            cell=cell_id,
            source=source,
            headless=headless(self.shell),
        )

    def view(self, place: Place, waiting: bool) -> View:
        cell = self._cell()
        if cell is None or not in_kernel(self.shell):
            return host.Script().view(place, waiting)
        if waiting not in cell.blocks:
            cell.blocks[waiting] = self._card(cell, place.headless, waiting)
        return cell.blocks[waiting]

    def _card(self, cell: Cell, headless: bool, waiting: bool) -> CellView:
        from kafka_jupyter.notebook.live import CellView

        made = CellView(headless, waiting, on_show=lambda run: cell.shown.add(run.id))
        cell.views.append(made)
        return made

    # --- cells

    def _cell(self) -> Cell | None:
        """The one that runs. None for what goes on beside the cells: a thread or a task that outlives its own."""
        if not self._cells and self._loading:
            self._cells.append(Cell(None))
        return self._cells[-1] if self._cells else None

    def _before(self, info: Any) -> None:
        self._loading = False
        self._cells.append(Cell(info))

    def _after(self, result: Any) -> None:
        self._loading = False
        info = getattr(result, "info", None)
        if result is not None and not any(cell.info is info or cell.info is None for cell in self._cells):
            return  # a cell that began before us, or an empty one: IPython does not announce those
        while self._cells:
            cell = self._cells.pop()
            self._end(cell, result)
            if result is None or cell.info is info:
                break
        self._open = [view for view in self._open if not view.finished]
        for view in self._open:
            view.settle()

    def _end(self, cell: Cell, result: Any) -> None:
        session = cell.session
        if session is not None:
            from kafka_jupyter.capture import patch

            session.close()
            patch.current.set(None)
            if not session.used and result is not None and result.success:
                self._complain(result)
        for view in cell.views:
            view.end()
            self._open.append(view)

    def _complain(self, result: Any) -> None:
        """The cell has failed, so that Run All stops. An exception of a callback would only be printed."""
        from kafka_jupyter.capture.session import NO_FIT

        error = UsageError(f"%%{transformer.MAGIC}: {NO_FIT}")
        result.error_in_exec = error
        self.shell.last_execution_succeeded = False
        self.shell.showtraceback((UsageError, error, None))


def in_kernel(shell: Any) -> bool:
    return getattr(shell, "kernel", None) is not None


def headless(shell: Any) -> bool:
    """Whether nobody is there: the execute request allows no input, or there is no kernel."""
    if not in_kernel(shell):
        return True
    return not request_of(shell).get("content", {}).get("allow_stdin", True)


def request_of(shell: Any) -> dict[str, Any]:
    """The execute request that a kernel answers now; empty where there is no kernel or no request."""
    return dict(shell.kernel.get_parent() or {}) if in_kernel(shell) else {}
