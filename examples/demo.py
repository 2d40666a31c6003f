"""A real server answers a real client: `make demo`, or `python examples/demo.py`.

Starts examples/echo.py over stdio, a Unix socket, TCP, HTTP and WebSocket, goes with a client of each era through everything it
offers, checks
every answer, and measures how quick they come. Ends with exit code 0, or with 1 and the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import mcpfast
from mcpfast import Client, types

ECHO = str(Path(__file__).with_name("echo.py"))
ERAS = {"legacy": "2025-11-25, a session", "auto": "2026-07-28, stateless"}
DEADLINE_S = 60.0  # the whole demo; it takes about ten seconds
MEASURE_S = 0.6  # each way of calling
IN_FLIGHT = 64
BAR_CHARACTERS = 30


Steps = list[tuple[str, str]]  # requests: what was called, and what came of it


class Wrong(Exception):
    """An answer that is not what it should be."""


class Paper:
    """Where the demo is written: plain text; on a terminal with colours, if rich is there."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._console: Any = None
        if self.terminal:
            with contextlib.suppress(ImportError):
                from rich.console import Console

                self._console = Console(highlight=False, soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, style=style or None, markup=False)

    def steps(self, steps: Steps) -> None:
        for method, what in steps:
            if self._console is None:
                print(f"  {method:<26} {what}", flush=True)
            else:
                self._console.print(f"  {method:<26} ", style="cyan", markup=False, end="")
                self._console.print(what, markup=False)

    def bar(self, done: float, what: str) -> None:
        """How far the measuring is, from 0 to 1; on a terminal only."""
        if self.terminal:
            filled = round(done * BAR_CHARACTERS)
            bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
            print(f"\r\x1b[2K  {bar}  {what}" if done < 1 else "\r\x1b[2K", end="", flush=True)


# ---------------------------------------------------------------------------------------------- servers


@contextlib.asynccontextmanager
async def sockets() -> AsyncIterator[list[str]]:
    """One server that listens three times; gives the addresses. It says itself which ports it was given."""
    with tempfile.TemporaryDirectory(prefix="mcpfast-") as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "mcpfast", "run", ECHO),
            *("--listen", f"unix://{folder}/echo.sock", "--listen", "tcp://127.0.0.1:0"),
            *("--listen", "http://127.0.0.1:0"),
            stderr=asyncio.subprocess.PIPE,
        )
        assert server.stderr is not None
        try:
            told = [(await server.stderr.readline()).decode() for _ in range(3)]
            if not all("listening on " in line for line in told):
                raise Wrong(
                    f"the server did not start: {''.join(told)}{(await server.stderr.read()).decode()}"
                )
            yield [line.partition("listening on ")[2].strip() for line in told]
            server.terminate()
            if await server.wait() != 0:
                raise Wrong(f"the server ended with exit code {server.returncode}")
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()


# ---------------------------------------------------------------------------------------------- the tour


def check(got: object, wanted: object) -> None:
    if got != wanted:
        raise Wrong(f"answered {got!r}, and should have answered {wanted!r}")


async def tour(steps: Steps, connect: Callable[..., Client], mode: str) -> None:
    """Everything that examples/echo.py offers, called and checked; what was done so far stands in `steps`."""
    questions: list[str] = []

    def answer(context: object, params: types.ElicitRequestParams) -> dict[str, Any]:
        questions.append(params.message)
        return {"cups": 2, "milk": True}

    async with connect(mode=mode, elicitation_callback=answer, timeout_s=10) as client:
        info = client.server_info
        assert info is not None
        opened = "initialize" if mode == "legacy" else "server/discover"
        steps.append(
            (opened, f"{info.name} {info.version}, speaks {client.protocol_version}: {client.instructions}")
        )
        check(client.protocol_version, ERAS[mode].partition(",")[0])
        await tour_tools(steps, client, questions)
        await tour_rest(steps, client)


async def tour_tools(steps: Steps, client: Client, questions: list[str]) -> None:
    tools = [tool.name for tool in (await client.list_tools()).tools]
    steps.append(("tools/list", ", ".join(tools)))
    check(tools, ["echo", "count", "order_coffee", "blocking_sum"])

    echoed = await client.call_tool("echo", {"text": "hello"}, raise_on_error=True)
    steps.append(("tools/call echo", f'text="hello"  ->  {echoed.text}'))
    check(echoed.data, "hello")

    refused = await client.call_tool("echo", {"text": 7})
    steps.append(("", f"text=7        ->  {refused.text}"))
    check(refused.is_error, True)

    progress: list[str] = []
    counted = await client.call_tool(
        "count", {"to": 3}, progress_callback=lambda done, total, message: progress.append(message or "")
    )
    steps.append(("tools/call count", f"to=3  ->  {counted.text}      on the way: {', '.join(progress)}"))
    check((counted.data, progress), (3, ["1 of 3", "2 of 3", "3 of 3"]))

    added = await client.call_tool("blocking_sum", {"numbers": [1.5, 2.5]}, raise_on_error=True)
    steps.append(
        ("tools/call blocking_sum", f"numbers=[1.5, 2.5]  ->  {added.text}      in a thread: it may block")
    )
    check(added.data, 4.0)

    ordered = await client.call_tool("order_coffee", raise_on_error=True)
    steps.append(
        ("tools/call order_coffee", f'->  "{questions[-1]}"  ->  cups=2, milk=true  ->  {ordered.text}')
    )
    check((ordered.data, len(questions)), ("2 cups, with milk", 1))


async def tour_rest(steps: Steps, client: Client) -> None:
    templates = [one.uri_template for one in (await client.list_resource_templates()).resource_templates]
    steps.append(("resources/templates/list", ", ".join(templates)))
    check(templates, ["echo://{word}"])

    read = (await client.read_resource("echo://moin")).contents[0]
    assert isinstance(read, types.TextResourceContents)
    steps.append(("resources/read", f"echo://moin  ->  {read.text}  ({read.mime_type})"))
    check((read.text, read.mime_type), ("moin", "text/plain"))

    prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
    steps.append(("prompts/list", ", ".join(prompts)))
    check(prompts, ["review"])

    content = (await client.get_prompt("review", {"code": "x = 1"})).messages[0].content
    assert isinstance(content, types.TextContent)
    steps.append(("prompts/get review", f'code="x = 1"  ->  {" ".join(content.text.split())}'))
    check(content.text, "Please review this code:\n\nx = 1")

    if client.server_capabilities.completions is not None:
        ref = {"type": "ref/prompt", "name": "review"}
        completed = await client.complete(ref, {"name": "code", "value": ""})
        steps.append(("completion/complete", ", ".join(completed.completion.values)))


# ---------------------------------------------------------------------------------------------- the measure


async def measure(call: Callable[[], Awaitable[object]], in_flight: int) -> tuple[float, float, float]:
    """p50 and p99 of the latency in microseconds, and calls a second, with `in_flight` calls at a time."""
    latencies_us: list[float] = []
    until = time.perf_counter() + MEASURE_S

    async def caller() -> None:
        while (begun := time.perf_counter()) < until:
            await call()
            latencies_us.append((time.perf_counter() - begun) * 1e6)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    rate = len(latencies_us) / (time.perf_counter() - begun)
    latencies_us.sort()
    return latencies_us[len(latencies_us) // 2], latencies_us[len(latencies_us) * 99 // 100], rate


async def measure_all(paper: Paper, ways: dict[str, Callable[..., Client]]) -> None:
    rows = []
    for number, (name, connect) in enumerate(ways.items()):
        async with connect(timeout_s=10) as client:
            figures: list[float] = []
            for half, in_flight in enumerate((1, IN_FLIGHT)):
                paper.bar(
                    (2 * number + half + 0.5) / (2 * len(ways)), f"measuring {name}, {in_flight} in flight"
                )
                figures += await measure(lambda: client.call_tool("echo", {"text": "hello"}), in_flight)
            rows.append(
                f"  {name:<12}"
                + "".join(f"{figure:>{w},.0f}" for figure, w in zip(figures, (9, 10, 12) * 2, strict=True))
            )
    paper.bar(1, "")
    paper.line(f"  {'echo, in us':<12}{'one at a time':>31}{f'{IN_FLIGHT} in flight':>31}", "bold")
    paper.line(f"  {'':<12}" + f"{'p50':>9}{'p99':>10}{'calls/s':>12}" * 2, "dim")
    for row in rows:
        paper.line(row)
    paper.line()
    paper.line("  This client is Python, and here it is the limit; `make bench` measures the server.")


async def demo(paper: Paper) -> None:
    paper.line(
        f"mcpfast {mcpfast.__version__}: examples/echo.py over stdio, sockets, HTTP and WebSocket", "bold"
    )
    async with asyncio.timeout(DEADLINE_S), sockets() as (unix, tcp, http):
        ways: dict[str, Callable[..., Client]] = {
            "stdio": lambda **options: Client.stdio([sys.executable, ECHO], **options),
            "Unix socket": lambda **options: Client(unix, **options),
            "TCP": lambda **options: Client(tcp, **options),
            "HTTP": lambda **options: Client(http, **options),
            "WebSocket": lambda **options: Client(http.replace("http", "ws", 1), **options),
        }
        told: dict[str, Steps] = {}
        for name, connect in ways.items():
            for mode, era in ERAS.items():
                steps: Steps = []
                paper.line()
                paper.line(f"{name}, {era}", "bold green")
                try:
                    await tour(steps, connect, mode)
                finally:  # where it stopped is seen, too
                    if told.setdefault(mode, steps) is not steps and told[mode] == steps:
                        paper.line(f"  the same {len(steps)} requests, and the same answers")
                    else:
                        paper.steps(steps)
        paper.line()
        await measure_all(paper, ways)


def main() -> int:
    paper = Paper()
    try:
        asyncio.run(demo(paper))
    except (Wrong, AssertionError, TimeoutError, mcpfast.McpFastError) as error:
        paper.bar(1, "")
        print(f"demo: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    paper.line("  Everything was answered as it should be.", "bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
