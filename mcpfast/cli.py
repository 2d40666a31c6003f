"""The `mcpfast` command. Quick to start: a stdio server is started for every session, so nothing is imported that is not needed."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mcpfast.errors import AddressError, McpFastError, MCPError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcpfast.server.app import MCPServer

OBJECT_NAMES = ("mcp", "server", "app")
EPILOG = """examples:
  mcpfast run notes.py                                  serve notes.py over stdio
  mcpfast run notes.py:server --listen tcp://127.0.0.1:9000 --listen unix:///run/notes.sock
  mcpfast inspect notes.py                              what it offers
  mcpfast call tcp://127.0.0.1:9000 add '{"a": 1, "b": 2}'

A TARGET is a server file (FILE.py[:OBJECT]), an address (tcp://HOST:PORT, unix:///PATH), or, behind --, a command that serves
over stdio:  mcpfast inspect -- npx some-server
"""


class Refusal(McpFastError):
    """What the user got wrong, in one line; exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 the server refused or failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    if "--" in given:
        cut = given.index("--")
        given, command = given[:cut], given[cut + 1 :]
    options = _parser().parse_args([*given, "--"] if command else given)
    options.command_line = command
    try:
        return int(options.action(options) or 0)
    except (Refusal, AddressError) as error:
        print(f"mcpfast: {error}", file=sys.stderr)
        return 2
    except MCPError as error:
        print(f"mcpfast: {error.message} (JSON-RPC error {error.code})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcpfast",
        description="Run, inspect and call MCP servers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve a file", description="Serve the MCPServer object of a Python file.")
    run.add_argument("file", metavar="FILE.py[:OBJECT]", help=f"OBJECT is {', '.join(OBJECT_NAMES)} unless said")
    run.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="stdio (the default), tcp://HOST:PORT or unix:///PATH; may be given several times",
    )
    run.add_argument("--loop", choices=("auto", "uvloop", "asyncio"), default="auto", help="the event loop (default: auto)")
    run.set_defaults(action=_run)

    inspect = commands.add_parser("inspect", help="show what a server offers", description="Show what a server offers.")
    _target(inspect)
    inspect.add_argument("--json", action="store_true", help="as one JSON object")
    inspect.set_defaults(action=_inspect)

    call = commands.add_parser("call", help="call a tool", description="Call one tool and print its result.")
    _target(call)
    call.add_argument("tool", metavar="TOOL", nargs="?")
    call.add_argument("args", metavar="ARGUMENTS", nargs="?", default="{}", help="a JSON object (default: {})")
    call.add_argument("--json", action="store_true", help="the whole result as JSON")
    call.set_defaults(action=_call)

    version = commands.add_parser("version", help="show the version")
    version.set_defaults(action=_version)
    return parser


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", nargs="?", help="FILE.py[:OBJECT], tcp://..., unix://..., or -- COMMAND")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each request (default: 30)")


# ---------------------------------------------------------------------------------------------------- the commands


def _run(options: Any) -> None:
    server = load(options.file)
    server.run(options.listen or "stdio", loop=options.loop)


def _version(options: Any) -> None:
    import platform

    from mcpfast import __version__
    from mcpfast.protocol.revisions import REVISIONS

    print(f"mcpfast {__version__} (Python {platform.python_version()})")
    print("MCP " + ", ".join(revision.version for revision in REVISIONS))


def _inspect(options: Any) -> int:
    import asyncio

    from mcpfast.client import inspection

    if options.target is None and not options.command_line:
        raise Refusal("inspect needs a TARGET; see mcpfast inspect --help")
    print(asyncio.run(inspection.inspect(client(options), as_json=options.json)))
    return 0


def _call(options: Any) -> int:
    import asyncio

    import msgspec

    from mcpfast.client import inspection

    if options.command_line:  # TARGET is the command, so what stands before it is the tool
        options.tool, options.args = options.target, options.tool or "{}"
    if options.tool is None:
        raise Refusal("call needs a TARGET and a TOOL; see mcpfast call --help")
    try:
        arguments = msgspec.json.decode(options.args, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Refusal(f"ARGUMENTS must be a JSON object: {error}") from None
    text, failed = asyncio.run(
        inspection.call(client(options), options.tool, arguments, as_json=options.json)
    )
    print(text)
    return 1 if failed else 0


# ---------------------------------------------------------------------------------------------------- targets


def client(options: Any) -> Any:
    """A Client for the target of the command line."""
    from mcpfast.client import Client

    if options.command_line:
        return Client.stdio(options.command_line, timeout_s=options.timeout)
    if "://" in options.target:
        return Client(options.target, timeout_s=options.timeout)
    return Client(load(options.target), timeout_s=options.timeout)


def load(text: str) -> MCPServer[Any]:
    """The server object of `FILE.py[:OBJECT]`. Raises Refusal, which says what is wrong and what to write."""
    import importlib.util
    import os

    path, colon, name = text.rpartition(":")
    if not colon or name.endswith(".py"):
        path, name = text, ""
    if not os.path.isfile(path):
        raise Refusal(f"no such file: {path!r}; a target is FILE.py or FILE.py:OBJECT")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(os.path.basename(path).removesuffix(".py"), path)
    if spec is None or spec.loader is None:
        raise Refusal(f"{path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return _find(module, path, name)


def _find(module: Any, path: str, name: str) -> MCPServer[Any]:
    from mcpfast.server.app import MCPServer

    if name:
        found = getattr(module, name, None)
        if isinstance(found, MCPServer):
            return found
        what = "has no object" if found is None else "has no MCPServer under the name"
        raise Refusal(f"{path} {what} {name!r}{_others(module)}")
    for usual in OBJECT_NAMES:
        if isinstance(getattr(module, usual, None), MCPServer):
            return getattr(module, usual)  # type: ignore[no-any-return]
    all_found = [value for value in vars(module).values() if isinstance(value, MCPServer)]
    if len(all_found) == 1:
        return all_found[0]
    raise Refusal(f"{path}: which object is the server? write {path}:OBJECT{_others(module)}")


def _others(module: Any) -> str:
    from mcpfast.server.app import MCPServer

    names = [name for name, value in vars(module).items() if isinstance(value, MCPServer)]
    return f" (there is {', '.join(names)})" if names else " (the file makes no MCPServer)"


if __name__ == "__main__":
    sys.exit(main())
