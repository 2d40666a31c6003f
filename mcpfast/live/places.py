"""Where code stands: frames as places one knows, the chain of what a call awaits, and whose function a handler is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from mcpfast.live.messages import Frame, Stack

if TYPE_CHECKING:
    from asyncio import Task

    from mcpfast.server.app import MCPServer

DEPTH_MAX = 100  # frames of one await chain
STACK_MAX = 40  # frames of one stack, the innermost
STANDARD = os.path.dirname(os.__file__) + os.sep
LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
UNDER_LOOP = frozenset({"mcpfast.serve", "asyncio.events", "asyncio.base_events"})  # what callbacks stand on
UNDER_THREAD = frozenset({"mcpfast.executor.threads"})  # and what a handler in a thread stands on


def frame_of(frame: FrameType, packages: Iterable[str] = ()) -> Frame:
    """`packages` are the user's, wherever they are installed."""
    code = frame.f_code
    module = str(frame.f_globals.get("__name__", ""))
    return Frame(code.co_qualname, file_of(code, module), frame.f_lineno or 0, is_own(code, module, packages))


def file_of(code: CodeType, module: str) -> str:
    """A file of a package with its folder, another one by its name alone."""
    parts = code.co_filename.rsplit(os.sep, 2)
    return "/".join(parts[-2:]) if "." in module and len(parts) > 1 else parts[-1]


def is_own(code: CodeType, module: str, packages: Iterable[str]) -> bool:
    file = code.co_filename
    package = module.partition(".")[0]
    if package == "mcpfast" or file.startswith("<frozen"):
        return False
    return package in packages or not (file.startswith(STANDARD) or any(part in file for part in LIBRARIES))


def stack_of(
    frame: FrameType | None, packages: Iterable[str] = (), under: frozenset[str] = UNDER_LOOP
) -> Stack:
    """Of the innermost `frame`, without what every one stands on. Empty: no Python runs there, or the loop waits."""
    return tuple(frame_of(one, packages) for one in reversed(list(frames_up(frame, under))))


def frames_up(frame: FrameType | None, under: frozenset[str] = UNDER_LOOP) -> Iterator[FrameType]:
    """From the innermost one outwards, as far as they tell something."""
    for _ in range(STACK_MAX):
        if frame is None or frame.f_globals.get("__name__") in under:
            return
        yield frame
        frame = frame.f_back


def awaited(task: Task[Any]) -> Iterator[FrameType]:
    """The frames of a suspended Task, outermost first, and on into a Task that it waits for."""
    step: Any = task.get_coro()
    for _ in range(DEPTH_MAX):
        if step is None:
            waiter: Any = getattr(task, "_fut_waiter", None)
            if not hasattr(waiter, "get_coro"):
                return
            task, step = waiter, waiter.get_coro()
        frame = _first(step, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            yield frame
        step = _first(step, "cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: Any, *names: str) -> Any:
    return next(
        (value for name in names if (value := getattr(thing, name, None)) is not None),
        None,
    )


def point_of(stack: Iterable[Frame]) -> str:
    """The innermost line of the user's, and what it stands in: "notes.py:42 in fetch > aiohttp/client.py:600 in _request"."""
    frames = list(stack)
    if not frames:
        return ""
    own = next((frame for frame in reversed(frames) if frame.own), None)
    ends = [frames[-1]] if own is None or own is frames[-1] else [own, frames[-1]]
    return " > ".join(f"{frame.file}:{frame.line} in {frame.function}" for frame in ends)


# ---- handlers ---------------------------------------------------------------------------------------------


def function_of(fn: Any) -> Any:
    """The function whose code runs: behind partials, methods, wrappers and callable objects."""
    for _ in range(DEPTH_MAX):
        inner = getattr(fn, "func", None) if isinstance(fn, partial) else None
        inner = inner or getattr(fn, "__wrapped__", None) or getattr(fn, "__func__", None)
        if inner is None:
            break
        fn = inner
    return fn if hasattr(fn, "__code__") else vars(type(fn)).get("__call__", fn)


def package_of(fn: Any) -> str:
    return str(getattr(function_of(fn), "__module__", "") or "").partition(".")[0]


class Handlers:
    """Which code is a handler's, and which packages are the user's for that."""

    def __init__(self, server: MCPServer[Any]) -> None:
        self.named: dict[CodeType, str] = {}
        self.packages: set[str] = set()
        catalog = server.catalog
        for tool in list(catalog.tools):
            self._know(tool.handler.call, f"tool {tool.name}")
        for resource in [*catalog.resources, *catalog.templates]:
            self._know(resource.handler.call, f"resource {resource.uri}")
        for prompt in list(catalog.prompts):
            self._know(prompt.handler.call, f"prompt {prompt.name}")
        self.packages.discard("mcpfast")

    def _know(self, fn: Any, name: str) -> None:
        code = getattr(function_of(fn), "__code__", None)
        if code is not None:
            before = self.named.get(code)  # handlers that a loop or a function makes share their code
            self.named[code] = name if before is None else before.partition(" (or")[0] + " (or one like it)"
            self.packages.add(package_of(fn))

    def on(self, frame: FrameType | None) -> str:
        """Whose stack it is: "tool fetch", or an empty string."""
        return next((self.named[one.f_code] for one in frames_up(frame) if one.f_code in self.named), "")
