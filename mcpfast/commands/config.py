"""`mcpfast config`: what a server is set to and who said so, and whether that can be used."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast import config, configured
from mcpfast.arguments import Parser, Refusal
from mcpfast.cli import Failed, load
from mcpfast.commands import output
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.stores import check

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer

FAILED, WRONG_USAGE = 1, 2
DESCRIPTION = "Show what a server is set to and who said so, or check it."
EPILOG = """\
examples:
  mcpfast config show --config mcpfast.toml            every setting, its value, where it comes from
  mcpfast config show notes.py --config mcpfast.toml   with what the code of notes.py says
  mcpfast config show --changed                        only what is no default
  mcpfast config show --json | jq .limits
  mcpfast config check --config mcpfast.toml           with the tenants of its registry

The file is --config, or what MCPFAST_CONFIG names. The environment (MCPFAST_LIMITS__FRAME_BYTES_MAX=1048576: two underscores) is
stronger than the file; the options of mcpfast run and the code of the server are stronger than both. Of code is told what is no
default. Secrets are masked. Exit code 1: there is a mistake, told with its place and the nearest right name; 2: wrong options."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast config",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    show = commands.add_parser("show", help="every setting, its value, where it comes from")
    show.add_argument("--changed", action="store_true", help="only what is no default")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.set_defaults(action=_show)
    checked = commands.add_parser("check", help="whether it can be used, and the tenants of its registry")
    checked.set_defaults(action=_check)
    for one in (show, checked):
        one.add_argument(
            "file", metavar="FILE.py[:OBJECT]", nargs="?", help="the server, to see what its code says"
        )
        one.add_argument("--config", metavar="FILE", help="the file (default: what MCPFAST_CONFIG names)")
    return made


def main(arguments: Sequence[str], behind: Sequence[str] = ()) -> int:
    """The exit code. `behind` is what stood behind --, and there is no use for it."""
    given = parser().parse_args(arguments)
    try:
        if behind:
            raise Refusal("there is no use for what stands behind --")
        server = None if given.file is None else load(given.file)
        code = None if server is None else configured.said_by(server)
        held = config.load(given.config, environ=os.environ, code=code)
        given.action(given, held, server)
    except Refusal as error:
        output.complain(f"mcpfast config: {error}")
        return WRONG_USAGE
    except Failed:  # the traceback of their file was shown
        return FAILED
    except ConfigurationError as error:
        output.complain(f"mcpfast config: {error}")
        return FAILED
    return 0


def _show(given: argparse.Namespace, held: config.Configuration, server: MCPServer[Any] | None) -> None:
    rows = [row for row in held.settings() if not given.changed or row[2] != config.DEFAULT]
    if given.json:
        output.show_json(_nested(rows))
        return
    output.show_table(
        ("setting", "value", "from"), [(path, output.plain(value), source) for path, value, source in rows]
    )


def _nested(rows: Sequence[tuple[str, object, str]]) -> dict[str, dict[str, object]]:
    """By section; names below a section stay paths."""
    sections: dict[str, dict[str, object]] = {}
    for path, value, source in rows:
        section, _, name = path.partition(".")
        told = {"value": msgspec.to_builtins(value), "source": source}
        sections.setdefault(section, {})[name] = told
    return sections


def _check(given: argparse.Namespace, held: config.Configuration, server: MCPServer[Any] | None) -> None:
    tenancy = configured.tenancy_of(held, None if server is None else server.tenancy)
    output.say(f"{held.file or 'the environment'}: good")
    if tenancy is not None:
        with closing(tenancy.store) as store:
            content = asyncio.run(store.load())
        check(content)
        counted = ", ".join(
            f"{len(of):,} {name if len(of) != 1 else name[:-1]}"
            for name, of in (("plans", content.plans), ("tenants", content.tenants), ("keys", content.keys))
        )
        output.say(f"{tenancy.registry}: good: {counted}")
