"""A person at a terminal as the user of a client: questions are asked there, progress and log messages shown.

Everything is written to stderr, so that stdout has the result alone. Without a terminal questions are declined.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from mcpfast.client.answers import ClientRequestContext
from mcpfast.client.inspection import type_text
from mcpfast.protocol import types

READ_BYTES = 4_096  # of one line that is typed; a terminal gives no longer ones
BAR_CHARACTERS = 24
ATTEMPTS = 3  # to answer yes or no
CLEAR = "\r\x1b[2K"


class Ended(Exception):
    """The user closed the input (Ctrl-D)."""


class Terminal:
    """The callbacks of a client: `Client(..., **Terminal().callbacks())`.

    `verbose` shows progress and log messages even where stderr is no terminal, each as a plain line.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._draws = sys.stderr.isatty()
        self.shows = self._draws or verbose
        self.asks = self._draws and sys.stdin.isatty()
        self._bar = False  # the last line is a progress bar, without an end yet
        self._turn = asyncio.Lock()  # several questions at once are asked one after the other

    def callbacks(self) -> dict[str, Any]:
        """For `Client`: elicitation always, progress and logs where somebody sees them."""
        shown = {"progress_callback": self.progress, "logging_callback": self.log, "log_level": "info"}
        return {"elicitation_callback": self.elicit, **(shown if self.shows else {})}

    def close(self) -> None:
        """Ends the line of the progress bar."""
        if self._bar:
            self._write("\n")
            self._bar = False

    # ---- what is shown

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        part = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
        if not self._draws:
            self._say(f"{part}  {message or ''}".rstrip())
            return
        bar = ""
        if total:
            done = min(BAR_CHARACTERS, max(0, round(BAR_CHARACTERS * progress / total)))
            bar = "#" * done + "." * (BAR_CHARACTERS - done) + "  "
        self._write(f"{CLEAR}{bar}{part}  {message or ''}".rstrip())
        self._bar = True

    def log(self, params: types.LoggingMessageNotificationParams) -> None:
        text = params.data if isinstance(params.data, str) else repr(params.data)
        self._say(f"{params.level}: {text}")

    def _say(self, line: str) -> None:
        self.close()
        self._write(line + "\n")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    # ---- what is asked

    async def elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult:
        """Asks the form field by field, or for consent to open a page; declines where nobody can be asked."""
        if not self.asks:
            return types.ElicitResult(action="decline")
        async with self._turn:
            self._say(f"\n{params.message}")
            try:
                if isinstance(params, types.ElicitRequestURLParams):
                    self._say(f"  {params.url}")
                    agreed = await self._yes("  Did you open it, and go on?", False)
                    return types.ElicitResult(action="accept" if agreed else "decline")
                if not await self._yes("  Answer?", True):
                    return types.ElicitResult(action="decline")
                return types.ElicitResult(action="accept", content=await self._form(params.requested_schema))
            except Ended:
                self._say("")
                return types.ElicitResult(action="cancel")

    async def _form(self, schema: dict[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        content: dict[str, Any] = {}
        for name, field in schema.get("properties", {}).items():
            about = field.get("description") or field.get("title")
            if about and about != name:
                self._say(f"  {about}")
            value = await self._field(name, field, name in required)
            if value is not None:
                content[name] = value
        return content

    async def _field(self, name: str, field: dict[str, Any], required: bool) -> Any:
        """A value that fits, asked until there is one; None for one left out."""
        choices = choices_of(field)
        kind = " | ".join(choices) if choices else type_text(field, {})
        default = field.get("default")
        hint = f" [{default}]" if default is not None else "" if required else " (may be empty)"
        while True:
            text = (await self._line(f"  {name}: {kind}{hint} > ")).strip()
            if not text and default is not None:
                return default
            if not text and not required:
                return None
            try:
                return read_value(text, field)
            except ValueError as error:
                self._say(f"    {error}")

    async def _yes(self, question: str, default: bool) -> bool:
        """What was answered; no, when none of several answers was one."""
        for left in reversed(range(ATTEMPTS)):
            answer = (await self._line(f"{question} {'[Y/n]' if default else '[y/N]'} ")).strip().lower()
            if not answer:
                return default
            if answer in ("y", "yes", "n", "no"):
                return answer.startswith("y")
            self._say("    yes or no?" if left else "    taken as no")
        return False

    async def _line(self, prompt: str) -> str:
        """One line as the terminal gives it. The loop goes on meanwhile; no thread stays behind when it ends."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._write(prompt)
        fd = sys.stdin.fileno()
        loop.add_reader(fd, _finish, ready)
        try:
            await ready
        finally:
            loop.remove_reader(fd)
        data = os.read(fd, READ_BYTES)
        if not data:
            raise Ended
        return data.decode(errors="replace")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def choices_of(field: dict[str, Any]) -> list[str]:
    """The values of a field with choices, [] for any other (specification, Elicitation: enum schemas)."""
    inner = field.get("items", field)
    if "enum" in inner:
        return [str(value) for value in inner["enum"]]
    return [
        str(one["const"]) for union in ("oneOf", "anyOf") for one in inner.get(union, ()) if "const" in one
    ]


def read_value(text: str, field: dict[str, Any]) -> Any:
    """What was typed, as the field's type. Raises ValueError that says what is wanted."""
    kind = field.get("type")
    if kind == "array":
        items = [item.strip() for item in text.split(",") if item.strip()]
        return [_chosen(item, choices_of(field)) for item in items]
    if kind == "boolean":
        if text.lower() in ("y", "yes", "true", "1"):
            return True
        if text.lower() in ("n", "no", "false", "0"):
            return False
        raise ValueError("yes or no?")
    if kind in ("integer", "number"):
        return _number(text, field)
    if not field.get("minLength", 0) <= len(text) <= field.get("maxLength", len(text)):
        least, most = field.get("minLength", 0), field.get("maxLength", "any number of")
        raise ValueError(f"from {least} to {most} characters")
    return _chosen(text, choices_of(field))


def _number(text: str, field: dict[str, Any]) -> int | float:
    try:
        value = int(text) if field["type"] == "integer" else float(text)
    except ValueError:
        raise ValueError(
            "a whole number, please" if field["type"] == "integer" else "a number, please"
        ) from None
    if not field.get("minimum", value) <= value <= field.get("maximum", value):
        raise ValueError(f"from {field.get('minimum', 'any')} to {field.get('maximum', 'any')}")
    return value


def _chosen(text: str, choices: list[str]) -> str:
    if choices and text not in choices:
        raise ValueError(f"one of {', '.join(choices)}")
    return text
