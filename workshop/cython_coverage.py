"""A plug-in for coverage: Cython's own, told where our sources and the C of the trace build are.

Cython's looks for the C beside the .pyx, and for the .pyx below the folder the process was started in. Ours is in the trace
build's tree (MCPFAST_TREE, see tree.py), and the tests start servers anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from Cython.Coverage import Plugin

SOURCES = Path(__file__).resolve().parent.parent / "mcpfast"


class TracedRooms(Plugin):
    def file_tracer(self, filename: str) -> Any:
        return super().file_tracer(in_work_tree(filename))

    def file_reporter(self, filename: str) -> Any:
        return super().file_reporter(in_work_tree(filename))

    def _find_source_files(self, filename: str) -> tuple[str | None, None]:
        path = Path(filename)
        if not path.is_relative_to(SOURCES):
            return None, None
        written = path.relative_to(SOURCES).with_suffix(".c")
        c_file = Path(os.environ.get("MCPFAST_TREE", ""), "mcpfast", written)
        return (str(c_file), None) if c_file.exists() else (None, None)


def in_work_tree(filename: str) -> str:
    """Cython names a source as it saw it, `mcpfast/_core.pyx`; coverage made that absolute, from wherever it runs."""
    path = Path(filename)
    if path.suffix not in (".pyx", ".pxd") or "mcpfast" not in path.parts:
        return filename
    depth = path.parts[::-1].index("mcpfast")
    own = SOURCES.joinpath(*path.parts[len(path.parts) - depth :])
    return str(own) if own.exists() else filename


def coverage_init(registry: Any, options: dict[str, Any]) -> None:
    """What coverage calls."""
    plugin = TracedRooms()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
