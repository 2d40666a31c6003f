"""What commands print: a table on a terminal, the same as plain text elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The last column is the widest."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        _show_rich(columns, rows)
    else:
        lines = [columns, *rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        say("\n".join(line.rstrip() for line in text))


def _show_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Text objects, no markup: what stands in them was written by others."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for at, column in enumerate(columns):
        table.add_column(column, no_wrap=at < len(columns) - 1)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def show_json(value: Any) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False))


def plain(value: Any) -> str:
    """A setting as one would write it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(str, value)) if isinstance(value, (set, frozenset)) else map(str, value))
    if value is None or value == {}:
        return ""
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
