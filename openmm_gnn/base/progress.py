"""The one progress bar: how much is done, how long it has taken, how long it will take still."""

from __future__ import annotations

from types import TracebackType


class ProgressBar:
    """A bar on the terminal, for use as a context manager.

    ```python
    with ProgressBar(total=len(files), shown=progress) as bar:
        for number, file in enumerate(files, 1):
            read(file)
            bar.update(number, title=file.name)
    ```
    """

    def __init__(self, total: float | None, shown: bool = True, done: float = 0, title: str = "") -> None:
        """
        Args:
            total: the amount of work; None if nobody knows it, then no remaining time is shown.
            shown: False for silence.
            done: work done before.
            title: text in front of the bar.
        """
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        ahead = (BarColumn(), TaskProgressColumn()) if total is not None else ()
        rest = (TextColumn("remaining"), TimeRemainingColumn()) if total is not None else ()
        columns = (TextColumn("{task.description}"), *ahead, TextColumn("{task.fields[text]}  elapsed"))
        self._bar = Progress(*columns, TimeElapsedColumn(), *rest, disable=not shown)
        self._task = self._bar.add_task(title, total=total, completed=done, text="")  # type: ignore[arg-type]

    def update(self, done: float, title: str | None = None, text: str = "") -> None:
        """Show that so much is done, with another title and a remark behind the bar."""
        self._bar.update(self._task, completed=done, description=title, text=text)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
