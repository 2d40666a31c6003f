"""What one sees while one waits: a line that moves on a terminal, plain lines elsewhere. On stderr; stdout is for the result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """Says each step once, in a line of its own."""

    @contextmanager
    def step(self, text: str, seconds: float = 0) -> Iterator[None]:
        """Around what takes a while; `seconds`, where one knows, how long."""
        self.say(f"{text} ({seconds:g} s)" if seconds else text)
        yield

    def say(self, text: str) -> None:
        sys.stderr.write(f"profile: {text}\n")
        sys.stderr.flush()


class Silent(Progress):
    def say(self, text: str) -> None:
        pass


class Live(Progress):
    """A spinner, and a bar where it is known how long a step lasts."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def step(self, text: str, seconds: float = 0) -> Iterator[None]:
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        if seconds:
            columns[2:2] = [_clock_bar()]
        with Bars(*columns, console=self.console, transient=True) as bars:
            bars.add_task(text, total=seconds or None)
            yield
        self.say(text)

    def say(self, text: str) -> None:
        self.console.print(f"[green]✓[/] {text}", highlight=False)


def _clock_bar() -> Any:
    """A bar that the clock moves: nobody else knows how far a profiler is."""
    from rich.progress import ProgressColumn, Task
    from rich.progress_bar import ProgressBar

    class ClockBar(ProgressColumn):
        def render(self, task: Task) -> ProgressBar:
            total = task.total or 1
            return ProgressBar(total=total, completed=min(task.elapsed or 0, total), width=32)

    return ClockBar()


def progress() -> Progress:
    """Live where stderr is a terminal and rich is installed."""
    if not sys.stderr.isatty():
        return Progress()
    try:
        return Live()
    except ImportError:
        return Progress()
