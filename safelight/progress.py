"""Progress bars of `safelight put`: one for all files, one for each that is under way. On standard error, where that is
a terminal; nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from safelight.uploading import Result, Wish


class Bars:
    """Told of each file by safelight.uploading."""

    def __init__(self, wishes: Sequence[Wish]) -> None:
        self._total = len(wishes)
        self._done = 0
        self._sent: dict[Wish, int] = {}
        self._lines: dict[Wish, TaskID] = {}
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._all = self._progress.add_task(self._title, total=sum(wish.size_bytes for wish in wishes))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, wish: Wish) -> None:
        self._lines[wish] = self._progress.add_task(wish.path.name[-40:], total=wish.size_bytes)

    def sent(self, wish: Wish, sent_bytes: int) -> None:
        """So many of its bytes are sent; fewer than before when it is tried again."""
        self._progress.advance(self._all, sent_bytes - self._sent.get(wish, 0))
        self._sent[wish] = sent_bytes
        self._progress.update(self._lines[wish], completed=sent_bytes)

    def end(self, wish: Wish, _result: Result, /) -> None:
        self._done += 1
        self._progress.remove_task(self._lines.pop(wish))
        self._progress.update(self._all, description=self._title)

    @property
    def _title(self) -> str:
        return f"{self._done} of {self._total} photos"
