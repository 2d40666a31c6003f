"""What all commands share: how arguments are refused, and what goes with requests to a URL."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from mcpfast.errors import McpFastError


class Refusal(McpFastError):
    """What the user got wrong, in one line; exit code 2."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to read on; its help keeps the lines as they are written."""

    def __init__(self, **told: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **told)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_credentials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="with every request to a URL, or to a FILE.py that serves tenants; may be given several times",
    )
    parser.add_argument(
        "--bearer-env",
        metavar="NAME",
        help="send the API key or token in this environment variable, to the same",
    )


def headers_of(options: Any) -> dict[str, str]:
    headers = {}
    for line in options.header:
        name, colon, value = line.partition(":")
        if not colon:
            raise Refusal(f"--header {line!r}: write it as 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def bearer_of(name: str | None) -> str | None:
    """The Authorization header's value. A token comes from the environment: arguments are seen by everybody on a machine."""
    if name is None:
        return None
    token = os.environ.get(name)
    if not token:
        raise Refusal(f"--bearer-env {name}: this environment variable is not set")
    return f"Bearer {token}"
