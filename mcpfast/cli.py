"""The `mcpfast` command. Quick to start: a stdio server is started for every session, so nothing is imported that is not needed."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mcpfast.arguments import Parser, Refusal, add_credentials, bearer_of, headers_of
from mcpfast.errors import AddressError, ConnectionClosed, MCPError, McpFastError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from mcpfast.client.terminal import Terminal
    from mcpfast.server.app import MCPServer

T = TypeVar("T")
OBJECT_NAMES = ("mcp", "server", "app")
UNAUTHENTICATED = 4010  # as servers with tenants say it (`tenancy.denied`)
REQUEST_S = 30.0  # the deadline of a request, where nobody says another
OUR_FILES = os.path.dirname(__file__)

TARGETS = """
A TARGET is a server file (FILE.py or FILE.py:OBJECT), an address (http://HOST:PORT/mcp, https://..., ws://...,
tcp://HOST:PORT, unix:///PATH), or, behind --, a command that serves over stdio."""
EXAMPLES = {
    "": """
  mcpfast run notes.py                              serve notes.py over stdio
  mcpfast inspect notes.py                          what it offers
  mcpfast call notes.py add '{"a": 1, "b": 2}'      call its tool `add`

mcpfast COMMAND --help says more.""",
    "run": """
  mcpfast run notes.py                              over stdio, as a host starts it
  mcpfast run notes.py:server                       the object `server` of the file
  mcpfast run notes.py:make_server                  what its function `make_server` returns
  mcpfast run notes.py --listen http://127.0.0.1:8000
  mcpfast run notes.py --listen https://0.0.0.0:8443 --ssl-certfile cert.pem --ssl-keyfile key.pem
  mcpfast run notes.py --listen tcp://127.0.0.1:9000 --listen unix:///run/notes.sock
  mcpfast run notes.py --listen tcp://127.0.0.1:0   on a free port, which is told on stderr
  mcpfast run notes.py --config mcpfast.toml        addresses, limits, tenants: as the file says
  mcpfast run notes.py --config mcpfast.toml --listen stdio --tenant acme
  mcpfast run notes.py -- --verbose                 what stands behind -- is the file's own sys.argv

stdio ends when its client is gone. SIGTERM and SIGINT (Ctrl-C) let the calls in flight end; a second one ends at once.
SIGHUP reads the tenants anew, where there are some; a change of their file is noticed without it, too.

Stronger than a setting of --config FILE is the environment (MCPFAST_LIMITS__IDLE_S=60: two underscores), than that the
options here, and than those what the file itself says (MCPServer(limits=...)). What holds, and who said so:
mcpfast config show notes.py --config mcpfast.toml""",
    "inspect": """
  mcpfast inspect notes.py
  mcpfast inspect http://127.0.0.1:8000/mcp --json | jq '.tools[].name'
  mcpfast inspect https://mcp.example.com/mcp --bearer-env TOKEN
  mcpfast inspect --protocol 2025-06-18 -- npx -y some-server /srv/files""",
    "call": """
  mcpfast call notes.py add '{"a": 1, "b": 2}'
  mcpfast call http://127.0.0.1:8000/mcp now
  mcpfast call unix:///run/notes.sock now
  mcpfast call notes.py sync --verbose 2>sync.log   with its progress, a line each
  mcpfast call add '{"a": 1}' --json -- npx -y some-server

What the tool asks is asked at the terminal, and declined where there is none. Exit code 1: the tool failed.""",
    "version": """
  mcpfast version                                   of mcpfast, of Python, of the protocol""",
}


class Failed(McpFastError):
    """The user's file failed, and its traceback was shown; exit code 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 the server refused or failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    behind: list[str] = []
    if "--" in given:
        cut = given.index("--")
        given, behind = given[:cut], given[cut + 1 :]
    if given[:1] in (["--version"], ["-V"]):
        given[0] = "version"
    if given[:1] == ["bench"]:
        from mcpfast.bench.command import main as bench

        return bench(given[1:], behind)
    if given[:1] == ["profile"]:
        from mcpfast.profile.command import main as profile

        return profile(given[1:], behind)
    if given[:1] == ["top"]:
        from mcpfast.live.top import main as top

        return top(given[1:], behind)
    if given[:1] == ["config"]:
        from mcpfast.commands.config import main as config

        return config(given[1:], behind)
    if given[:1] == ["tenant"]:
        from mcpfast.commands.tenant import main as tenant

        return tenant(given[1:], behind)
    options = _parser().parse_args(given)
    options.behind = behind
    try:
        return int(options.action(options) or 0)
    except (Refusal, AddressError) as error:
        print(f"mcpfast: {error}", file=sys.stderr)
        return 2
    except Failed:
        return 1
    except (ConnectionClosed, TimeoutError) as error:
        print(f"mcpfast: {error}", file=sys.stderr)
        return 1
    except MCPError as error:
        hint = _who_is_asking(options) if error.code == UNAUTHENTICATED else ""
        print(f"mcpfast: {error.message} (JSON-RPC error {error.code}){hint}", file=sys.stderr)
        return 1
    except McpFastError as error:  # settings, tenants or keys that cannot be used
        print(f"mcpfast: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `mcpfast inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


def _who_is_asking(options: argparse.Namespace) -> str:
    """How to say it, for who said nothing."""
    if getattr(options, "bearer_env", None) or getattr(options, "header", None) or options.behind:
        return ""
    return "; --bearer-env NAME sends the API key or token in that environment variable"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mcpfast",
        description="Run, inspect and call MCP servers.",
        epilog=f"examples:{EXAMPLES['']}",
    )
    parser.add_argument("-V", "--version", action="store_true", help="the same as the command version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, help: str, action: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=help[0].lower() + help[1:].rstrip("."),
            description=help,
            epilog=f"examples:{EXAMPLES[name]}" + (f"\n{TARGETS}" if action in (_inspect, _call) else ""),
        )
        made.set_defaults(action=action)
        return made

    run = command("run", "Serve the MCPServer of a Python file.", _run)
    run.add_argument(
        "file", metavar="FILE.py[:OBJECT]", help=f"OBJECT is {' or '.join(OBJECT_NAMES)} unless said"
    )
    run.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="stdio (the default), http://HOST:PORT, https://..., tcp://HOST:PORT, unix:///PATH or unix+http:///PATH; "
        "may be given several times",
    )
    run.add_argument(
        "--config",
        metavar="FILE",
        help="settings and tenants, in TOML (default: what MCPFAST_CONFIG names, or none)",
    )
    run.add_argument(
        "--tenant",
        default="",
        metavar="ID",
        help="over stdio, the tenant that is served (default: what MCPFAST_TENANT names)",
    )
    run.add_argument(
        "--session-mode",
        choices=("stateful", "sealed", "off"),
        help="over HTTP, sessions of revisions up to 2025-11-25: in this process (the default), in their ids, or none",
    )
    run.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="over HTTP, a name that the server may be asked by",
    )
    run.add_argument(
        "--allow-origin",
        action="append",
        metavar="ORIGIN",
        help="over HTTP, a web page's origin that may ask (CORS)",
    )
    run.add_argument("--ssl-certfile", metavar="FILE", help="the certificate of an https:// address (PEM)")
    run.add_argument("--ssl-keyfile", metavar="FILE", help="its key, where it is not in the same file")
    run.add_argument("--loop", choices=("auto", "uvloop", "asyncio"), help="the event loop (default: auto)")
    # What other tools have; known here, to be answered well.
    run.add_argument("--host", help=argparse.SUPPRESS)
    run.add_argument("--port", type=int, help=argparse.SUPPRESS)

    inspect = command("inspect", "Show what a server offers.", _inspect)
    _target(inspect)
    inspect.add_argument("--json", action="store_true", help="as one JSON object")

    call = command("call", "Call a tool and print its result.", _call)
    _target(call)
    call.add_argument("tool", metavar="TOOL", nargs="?")
    call.add_argument("args", metavar="ARGUMENTS", nargs="?", help="a JSON object (default: {})")
    call.add_argument("--json", action="store_true", help="the whole result as JSON")
    call.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="progress and log messages on stderr, even where it is no terminal",
    )

    commands.add_parser("bench", help="drive a server as hard as it can go, and measure it", add_help=False)
    commands.add_parser("profile", help="see where a server's time or memory goes", add_help=False)
    commands.add_parser(
        "top", help="look into a live server: sessions, calls in flight, queues", add_help=False
    )
    commands.add_parser("config", help="show or check what a server is set to", add_help=False)
    commands.add_parser("tenant", help="look after tenants and their API keys", add_help=False)
    command("version", "Show the version.", _version)
    return parser


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py[:OBJECT], http://..., tcp://..., unix://..., or -- COMMAND",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"for each request (default: {REQUEST_S:g}; none where you may be asked something)",
    )
    add_credentials(parser)
    parser.add_argument(
        "--protocol",
        default="auto",
        metavar="REVISION",
        help="one revision, say 2025-06-18, or legacy: the newest that begins with initialize (default: the newest)",
    )


# ---------------------------------------------------------------------------------------------------- the commands


def _run(options: Any) -> None:
    if options.host is not None or options.port is not None:
        from mcpfast.transports.addresses import Address

        address = Address("http", options.host or "127.0.0.1", 8000 if options.port is None else options.port)
        raise Refusal(f"run: there is no --host or --port here; write --listen {address}")
    over_http = {
        "session_mode": options.session_mode,
        "allowed_hosts": options.allow_host,
        "allowed_origins": options.allow_origin,
        "ssl_certfile": options.ssl_certfile,
        "ssl_keyfile": options.ssl_keyfile,
    }
    over_http = {name: value for name, value in over_http.items() if value is not None}
    server = load(options.file, options.behind)
    try:
        server.run(
            options.listen, config=options.config, tenant=options.tenant, loop=options.loop, **over_http
        )
    except (
        McpFastError,
        ImportError,
    ):  # an address or settings that cannot be used, a loop that is not installed
        raise
    except Exception as error:  # the file's own lifespan, say
        _show(error, sys.argv[0])
        raise Failed from None


def _version(options: Any) -> None:
    import platform

    from mcpfast import __version__
    from mcpfast.protocol.revisions import REVISIONS

    print(f"mcpfast {__version__} (Python {platform.python_version()})")
    print("MCP " + ", ".join(revision.version for revision in REVISIONS))


def _inspect(options: Any) -> None:
    from mcpfast.client import inspection

    if options.target is not None and options.behind:
        raise Refusal("inspect: either a TARGET or a command behind --, not both")
    print(_together(inspection.inspect(client(options), as_json=options.json)), flush=True)


def _call(options: Any) -> int:
    import msgspec

    from mcpfast.client import inspection
    from mcpfast.client.terminal import Terminal

    if options.behind:  # TARGET is the command, so what stands before it is the tool
        if options.args is not None:
            raise Refusal("call: either a TARGET or a command behind --, not both")
        options.target, options.tool, options.args = None, options.target, options.tool
    if options.tool is None:
        raise Refusal("call needs a TARGET and a TOOL; see mcpfast call --help")
    try:
        arguments = msgspec.json.decode(options.args or "{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Refusal(f"ARGUMENTS must be a JSON object, as in '{{\"a\": 1}}': {error}") from None
    terminal = Terminal(verbose=options.verbose)
    try:
        made = client(options, terminal)
        text, failed = _together(inspection.call(made, options.tool, arguments, as_json=options.json))
    finally:
        terminal.close()
    print(text, flush=True)
    return 1 if failed else 0


def _together(asked: Coroutine[Any, Any, T]) -> T:
    """Runs a client, and in the same process perhaps the user's server, whose lifespan may fail."""
    import asyncio

    try:
        return asyncio.run(asked)
    except (McpFastError, TimeoutError):
        raise
    except Exception as error:
        _show(error, sys.argv[0])
        raise Failed from None


# ---------------------------------------------------------------------------------------------------- targets


def client(options: Any, terminal: Terminal | None = None) -> Any:
    """A Client for the target of the command line; `terminal` answers what the server asks."""
    from mcpfast.client import Client
    from mcpfast.transports.addresses import parse

    timeout_s = options.timeout
    if timeout_s is None and not (terminal is not None and terminal.asks):
        timeout_s = REQUEST_S
    settings: dict[str, Any] = {"timeout_s": timeout_s, "mode": options.protocol, **credentials(options)}
    if terminal is not None:
        settings |= terminal.callbacks()
    target = options.behind or options.target
    if target is None:
        raise Refusal(
            "what is the TARGET? FILE.py, http://HOST:PORT/mcp, tcp://HOST:PORT, unix:///PATH, or a command behind --"
        )
    if isinstance(target, str):
        scheme, colon, rest = target.partition(":")
        if colon and scheme in ("tcp", "unix"):
            parse(target)  # it names the right spelling
        elif scheme in ("http", "https", "ws", "wss"):
            pass
        elif rest.startswith("//"):
            raise Refusal(
                f"{target!r}: {scheme}:// is not spoken here; write http://HOST:PORT/mcp, tcp://HOST:PORT or unix:///PATH"
            )
        else:
            target = load(target)
    try:
        return Client(target, **settings)
    except AddressError:
        raise
    except ValueError as error:  # --protocol
        raise Refusal(f"--protocol: {error}") from None


def credentials(options: Any) -> dict[str, Any]:
    """What goes with the requests to a URL, or says to a server of this process whose they are."""
    headers, bearer = headers_of(options), bearer_of(options.bearer_env)
    settings: dict[str, Any] = {"headers": headers} if headers else {}
    return settings if bearer is None else {**settings, "authorization": bearer}


def load(text: str, arguments: Sequence[str] = ()) -> MCPServer[Any]:
    """The server that `FILE.py[:OBJECT]` is or makes; the file sees `arguments` as its own.

    Raises Refusal, which says what to write, and Failed when the file raises, after its traceback was shown.
    """
    path, colon, name = text.rpartition(":")
    if not colon or name.endswith(".py"):
        path, name = text, ""
    if not os.path.isfile(path):
        what = "a directory" if os.path.isdir(path) else "no such file"
        raise Refusal(f"{path!r}: {what}; write FILE.py or FILE.py:OBJECT")
    return _find(_execute(path, arguments), path, name)


def _execute(path: str, arguments: Sequence[str]) -> Any:
    """The module of a file, run as an import runs it."""
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    name = os.path.basename(path).removesuffix(".py")
    if name in sys.modules or name in sys.stdlib_module_names:  # types.py must not become everybody's `types`
        name = "__mcp_server__"
    absolute = os.path.abspath(path)
    spec = spec_from_file_location(name, absolute, loader=SourceFileLoader(name, absolute))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(absolute))
    sys.argv = [path, *arguments]
    with _theirs(absolute):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _theirs(path: str) -> Iterator[None]:
    """Around the code of their file: what it prints goes to stderr (stdout belongs to the protocol), what it raises is shown."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    except SystemExit as left:
        if left.code in (None, 0):  # `FILE.py -- --help`
            raise
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        raise Failed from None
    except Exception as error:
        _show(error, path)
        raise Failed from None
    finally:
        sys.stdout = stdout


def _show(error: Exception, path: str) -> None:
    """The traceback from the user's file on, without our own frames."""
    import traceback

    shown = traceback.TracebackException.from_exception(error)
    chained: list[traceback.TracebackException | None] = [shown]
    while chained:
        one = chained.pop()
        if one is not None:
            _shorten(one, os.path.abspath(path))
            chained += [one.__cause__, one.__context__]
    print("".join(shown.format()), end="", file=sys.stderr, flush=True)


def _shorten(shown: Any, path: str) -> None:
    frames = list(shown.stack)
    begin = next((i for i, frame in enumerate(frames) if frame.filename == path), None)
    if begin is None:
        if (
            getattr(shown, "filename", None) is None
        ):  # no syntax error in their file: not theirs, so everything is shown
            return
        begin = len(frames)
    theirs = [
        frame
        for frame in frames[begin:]
        if not frame.filename.startswith((OUR_FILES, "<frozen importlib", "mcpfast/_"))
    ]
    shown.stack[:] = theirs


def _find(module: Any, path: str, name: str) -> MCPServer[Any]:
    from mcpfast.server.app import MCPServer

    if name:
        found = getattr(module, name, None)
        if isinstance(found, MCPServer):
            return found
        if callable(found) and not isinstance(found, type):
            return _made_by(found, path, name)
        what = "has no object" if found is None else "has no MCPServer under the name"
        raise Refusal(f"{path} {what} {name!r}{_others(module)}")
    for usual in OBJECT_NAMES:
        if isinstance(getattr(module, usual, None), MCPServer):
            return getattr(module, usual)  # type: ignore[no-any-return]
    all_found = [value for value in vars(module).values() if isinstance(value, MCPServer)]
    if len(all_found) == 1:
        return all_found[0]
    if not all_found:
        raise Refusal(f"{path} makes no MCPServer; it needs one, as in  server = MCPServer('name')")
    raise Refusal(f"{path}: which object is the server? write {path}:OBJECT{_others(module)}")


def _made_by(factory: Any, path: str, name: str) -> MCPServer[Any]:
    import inspect

    from mcpfast.server.app import MCPServer

    usual = "a function that makes a server takes no arguments, is not async, and returns an MCPServer"
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise Refusal(f"{path}:{name}: {error}; {usual}") from None
    made = None
    if not inspect.iscoroutinefunction(factory):
        with _theirs(os.path.abspath(path)):
            made = factory()
    if not isinstance(made, MCPServer):
        raise Refusal(f"{path}:{name} gives no MCPServer; {usual}")
    return made


def _others(module: Any) -> str:
    from mcpfast.server.app import MCPServer

    names = [name for name, value in vars(module).items() if isinstance(value, MCPServer)]
    return f" (there is {', '.join(names)})" if names else " (the file makes no MCPServer)"


if __name__ == "__main__":
    sys.exit(main())
