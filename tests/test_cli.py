"""The `mcpfast` command, as a user meets it: what works, and what is said when something does not."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpfast import cli

ECHO = str(Path(__file__).parent.parent / "examples" / "echo.py")
COMMAND = [sys.executable, "-m", "mcpfast"]
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"t","version":"1"}}}\n'
)
DEADLINE_S = 30

SERVER = "from mcpfast import MCPServer, ToolError\n"
FACTORIES = (
    SERVER
    + "import sys\nserver = MCPServer('made')\n"
    + "def make():\n    print('making', sys.argv[1:])\n    return server\n"
    + "def needs(name): ...\nasync def later(): return server\ndef gives_none(): ...\n"
    + "def fails(): raise KeyError('no settings')\nclass Notes(MCPServer): ...\n"
)
TWO = SERVER + "first = MCPServer('first')\nsecond = MCPServer('second')\nother = 1\n"


@pytest.fixture(autouse=True)
def as_before(tmp_path: Path) -> Iterator[None]:
    """Loading a file changes what a process of its own may change."""
    argv, path = sys.argv, list(sys.path)
    yield
    sys.argv, sys.path[:] = argv, path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith((str(tmp_path), ECHO)):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(source: str, name: str = "notes.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of one command line, run in this process."""
    try:
        code = cli.main(arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    return code, *capsys.readouterr()


# ---------------------------------------------------------------------------------------------- wrong usage


WRONG = {
    "no file": (["run", "nowhere.py"], "'nowhere.py': no such file; write FILE.py or FILE.py:OBJECT"),
    "a directory": (["inspect", "/tmp"], "'/tmp': a directory"),
    "no object": (["run", "{two}:third"], "has no object 'third' (there is first, second)"),
    "no server": (["run", "{two}:other"], "has no MCPServer under the name 'other' (there is first, second)"),
    "which object": (["run", "{two}"], ":OBJECT (there is first, second)"),
    "nothing there": (
        ["inspect", "{empty}"],
        "makes no MCPServer; it needs one, as in  server = MCPServer('name')",
    ),
    "listen where": (
        ["run", ECHO, "--listen", "nowhere"],
        '\'nowhere\' is no address; use "stdio", "http://HOST:PORT"',
    ),
    "listen on http": (["run", ECHO, "--listen", "http://x"], "HTTP needs a port"),
    "listen on no port": (["run", ECHO, "--listen", "tcp://h:x"], "TCP needs a port from 0 to 65535"),
    "listen twice": (
        ["run", ECHO, "--listen", "stdio", "--listen", "stdio"],
        "stdio can be served once only",
    ),
    "ftp target": (
        ["inspect", "ftp://x/mcp"],
        "ftp:// is not spoken here; write http://HOST:PORT/mcp, tcp://HOST:PORT or unix:///PATH",
    ),
    "nobody at the URL": (["inspect", "http://127.0.0.1:1/mcp"], "Cannot connect to http://127.0.0.1:1/mcp"),
    "nobody at the socket's URL": (["call", "ws://127.0.0.1:1", "x"], "Cannot connect to ws://127.0.0.1:1"),
    "half a header": (["inspect", "http://x/", "--header", "X"], "write it as 'Name: value'"),
    "no token": (["inspect", "http://x/", "--bearer-env", "NO_TOKEN_HERE"], "variable is not set"),
    "a token where nobody asks": (
        ["inspect", ECHO, "--header", "X-API-Key: k"],
        "this server has no tenants",
    ),
    "a token on a socket": (["inspect", "tcp://127.0.0.1:1", "--header", "X: k"], "go with a URL"),
    "no certificate": (["run", ECHO, "--listen", "https://:0"], "https:// needs a certificate"),
    "nobody there": (["inspect", "tcp://127.0.0.1:1"], "Cannot connect to 127.0.0.1 port 1"),
    "no socket": (["call", "unix:///nowhere/x.sock", "echo"], "/nowhere/x.sock"),
    "bad port": (["inspect", "tcp://127.0.0.1"], "TCP needs a port from 0 to 65535"),
    "no command": (["inspect", "--", "mcpfast-no-such-command"], "Cannot start 'mcpfast-no-such-command'"),
    "no target": (["inspect"], "what is the TARGET?"),
    "no tool": (["call", ECHO], "call needs a TARGET and a TOOL"),
    "two targets": (["inspect", ECHO, "--", "python"], "either a TARGET or a command"),
    "three targets": (["call", ECHO, "echo", "{{}}", "--", "python"], "either a TARGET or a command"),
    "no JSON": (
        ["call", ECHO, "echo", "text=hi"],
        "ARGUMENTS must be a JSON object, as in '{{\"a\": 1}}': JSON is malformed",
    ),
    "no object in JSON": (["call", ECHO, "echo", "[1]"], "ARGUMENTS must be a JSON object"),
    "no revision": (
        ["inspect", ECHO, "--protocol", "2020-01-01"],
        "--protocol: mode '2020-01-01' is unknown",
    ),
    "no command word": ([], "the following arguments are required: COMMAND; see mcpfast --help"),
    "no such word": (["serve", ECHO], "invalid choice: 'serve'"),
    "no FILE": (["run"], "the following arguments are required: FILE.py[:OBJECT]; see mcpfast run --help"),
    "no such option": (["run", ECHO, "--reload"], "unrecognized arguments: --reload"),
    "another tool's port": (["run", ECHO, "--port", "9"], "write --listen http://127.0.0.1:9\n"),
    "another tool's host": (["run", ECHO, "--host", "::"], "write --listen http://[::]:8000\n"),
    "two slashes": (
        ["run", ECHO, "--listen", "unix:/run/x"],
        "'unix:/run/x': a Unix socket needs two slashes",
    ),
    "target with a slash": (["inspect", "unix:/run/x"], "write unix:///run/x\n"),
    "TCP without slashes": (["call", "tcp:127.0.0.1:9", "now"], "write tcp://127.0.0.1:9\n"),
    "relative": (["inspect", "unix://run/x"], f"write unix://{os.getcwd()}/run/x\n"),
    "a factory with arguments": (
        ["run", "{factories}:needs"],
        ":needs: missing a required argument: 'name'; a function that makes a server takes no arguments",
    ),
    "an async factory": (["run", "{factories}:later"], ":later gives no MCPServer; a function that makes"),
    "a factory of nothing": (["run", "{factories}:gives_none"], ":gives_none gives no MCPServer"),
    "a class": (["run", "{factories}:Notes"], "has no MCPServer under the name 'Notes' (there is server)"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_usage_gets_one_line_and_exit_code_2(
    arguments: list[str], sentence: str, file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"two": file(TWO, "two.py"), "empty": file("x = 1\n", "empty.py")}
    files["factories"] = file(FACTORIES, "factories.py")
    code, out, err = said(capsys, *(argument.format(**files) for argument in arguments))
    assert (code, out) == (2, "")
    assert sentence.format(**files) in err
    assert err.startswith("mcpfast") and err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize("command", ["", "run", "inspect", "call", "version"])
def test_help_teaches_by_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, *command.split(), "--help")
    assert code == 0
    assert f"\nexamples:\n  mcpfast {command or 'run'} " in out
    assert ("A TARGET is" in out) == (command in ("inspect", "call"))
    assert all(len(line) <= 120 for line in out.splitlines())


def test_version_names_every_revision(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "version")
    assert code == 0
    assert re.fullmatch(
        r"mcpfast \d\S* \(Python 3\.\d+\.\d+\S*\)\n"
        r"MCP 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28\n",
        out,
    )


# ---------------------------------------------------------------------------------------------- the user's file


def test_an_exception_in_the_file_shows_its_own_frames(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(
        SERVER
        + "import json\nserver = MCPServer('x')\n"
        + "def read():\n    try:\n        return json.loads('nonsense')\n"
        + "    except ValueError as error:\n        raise RuntimeError('no settings') from error\n"
        + "read()\n"
    )
    code, out, err = said(capsys, "run", path)
    assert (code, out) == (1, "")
    assert err.endswith("RuntimeError: no settings\n") and "JSONDecodeError" in err
    assert f'File "{path}", line 9, in <module>' in err and f'File "{path}", line 8, in read' in err
    assert "json/decoder.py" in err  # what they called is theirs, too
    assert "cli.py" not in err and "importlib" not in err


def test_what_our_code_refuses_shows_where_they_wrote_it(
    file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(SERVER + "server = MCPServer('x')\n@server.resource('x://{a}')\ndef x(b: str) -> str: ...\n")
    code, _, err = said(capsys, "inspect", path)
    assert code == 1
    assert f'File "{path}", line 3, in <module>' in err
    assert err.count('File "') == 1 and "RegistrationError: resource 'x://{a}'" in err


def test_a_syntax_error_shows_the_line(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = file("def (\n")
    code, _, err = said(capsys, "run", path)
    assert code == 1
    assert err.startswith(f'  File "{path}", line 1\n') and err.endswith("SyntaxError: invalid syntax\n")


def test_a_file_that_ends_by_itself(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "run", file("import sys\nsys.exit('set NOTES_DIR')\n")) == (1, "", "set NOTES_DIR\n")
    assert said(capsys, "run", file("import sys\nsys.exit()\n", "other.py"))[0] == 0


FAILING_LIFESPAN = (
    SERVER
    + "from contextlib import asynccontextmanager\n"
    + "@asynccontextmanager\nasync def lifespan(server):\n    raise RuntimeError('no database')\n    yield\n"
    + "server = MCPServer('x', lifespan=lifespan)\n"
)


@pytest.mark.parametrize(
    "arguments", [["run", "--listen", "tcp://127.0.0.1:0"], ["inspect"]], ids=["run", "inspect"]
)
def test_a_lifespan_that_fails_shows_their_frames(
    arguments: list[str], file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(FAILING_LIFESPAN)
    code, out, err = said(capsys, *arguments, path)
    assert (code, out) == (1, "")
    assert err.endswith("RuntimeError: no database\n")
    assert f'File "{path}", line 5, in lifespan' in err and "/mcpfast/" not in err


def test_a_file_may_be_named_like_a_module_print_and_have_arguments(
    file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SERVER + "import sys\nprint('hello', sys.argv[1:])\nserver = MCPServer('x')\n"
    path = file(source, "types.py")
    assert cli.load(path, ["--a", "1"]).name == "x"
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello ['--a', '1']\n")  # stdout belongs to the protocol
    assert sys.modules["types"].__file__ != path


def test_which_object_is_served(file: Any) -> None:
    assert cli.load(file(TWO) + ":second").name == "second"
    assert cli.load(file(SERVER + "anything = MCPServer('one')\n", "one.py")).name == "one"
    assert cli.load(file(TWO + "mcp = second\n", "mcp_first.py")).name == "second"


def test_a_function_may_make_the_server(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(FACTORIES)
    assert cli.load(path + ":make", ["--a"]).name == "made"
    assert capsys.readouterr() == ("", "making ['--a']\n")  # stdout belongs to the protocol
    code, _, err = said(capsys, "run", path + ":fails")
    assert code == 1 and err.endswith("KeyError: 'no settings'\n")
    assert err.count('File "') == 1 and "in fails" in err


def test_a_file_finds_what_stands_beside_it(file: Any) -> None:
    file("name = 'beside'\n", "names_beside.py")
    assert (
        cli.load(file(SERVER + "from names_beside import name\nserver = MCPServer(name)\n")).name == "beside"
    )


# ---------------------------------------------------------------------------------------------- inspect and call


def test_inspect_shows_what_a_file_offers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "inspect", ECHO)
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert lines[:2] == ["echo 1.0", "Echoes, counts and asks."]
    assert "protocol      2026-07-28" in lines and "Tools (4)" in lines and "Prompts (1)" in lines
    assert "  echo                          Give back the text." in lines
    assert "      to       integer          where to stop" in lines
    assert "      numbers  array of number" in lines
    assert "  echo://{word}                 Every word is a resource.  [text/plain]" in lines


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2026-07-28"])
def test_inspect_as_json_over_stdio(revision: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "inspect", "--json", "--protocol", revision, "--", sys.executable, ECHO)
    assert code == 0
    told = json.loads(out)
    assert (told["protocolVersion"], told["serverInfo"]["name"]) == (revision, "echo")
    assert [tool["name"] for tool in told["tools"]] == ["echo", "count", "order_coffee", "blocking_sum"]


def test_call_prints_the_result(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "call", ECHO, "echo", '{"text": "hi"}') == (0, "hi\n", "")
    code, out, _ = said(
        capsys, "call", "blocking_sum", '{"numbers": [1, 2]}', "--json", "--", sys.executable, ECHO
    )
    assert (code, json.loads(out)["structuredContent"]) == (0, {"result": 3})
    code, out, err = said(capsys, "call", ECHO, "echo", "{}")
    assert (code, err) == (1, "") and out.startswith("Invalid arguments for tool echo")
    assert said(capsys, "call", ECHO, "nope") == (
        1,
        "",
        "mcpfast: Unknown tool: nope (JSON-RPC error -32602)\n",
    )


def test_a_question_is_declined_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for protocol in ("legacy", "2026-07-28"):
        assert said(capsys, "call", ECHO, "order_coffee", "--protocol", protocol) == (
            0,
            "No coffee, then.\n",
            "",
        )


def test_a_server_that_dies_or_sleeps_gets_one_line(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dying = file("raise SystemExit('no luck today')\n")
    code, _, err = said(capsys, "inspect", "--", sys.executable, dying)
    assert code == 1 and "mcpfast: The server closed the connection" in err and "no luck today" in err
    sleeping = file(
        SERVER
        + "import asyncio\nserver = MCPServer('x')\n@server.tool\nasync def nap(): await asyncio.sleep(60)\n"
    )
    code, _, err = said(capsys, "call", sleeping, "nap", "--timeout", "0.05")
    assert (code, err) == (1, "mcpfast: No answer to tools/call within 0.05 s\n")


def test_a_closed_stdout_is_no_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*COMMAND, "inspect", ECHO], stdout=theirs, stderr=subprocess.PIPE, timeout=DEADLINE_S
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, b"")


class Typist:
    """A person at a terminal: reads what is shown, and types."""

    def __init__(self, *arguments: str) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.fd)

    def sees(self, text: str) -> None:
        """Waits until `text` was shown; what came before it is forgotten."""
        import select

        until = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert select.select([self.fd], [], [], until - time.monotonic())[0], (
                f"no {text!r} in {self.shown!r}"
            )
            self.shown += os.read(self.fd, 4096).decode()
        self.shown = self.shown.partition(text)[2]

    def types(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def result(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.read().decode()
        assert self.process.wait(DEADLINE_S) == 0
        return text


@pytest.mark.parametrize("protocol", ["legacy", "2026-07-28"])
def test_a_question_is_asked_at_the_terminal(protocol: str) -> None:
    with Typist("call", ECHO, "order_coffee", "--protocol", protocol) as typist:
        typist.sees("How much coffee?")
        typist.sees("Answer? [Y/n] ")
        typist.types("\n")
        typist.sees("cups: integer > ")
        typist.types("many\n")
        typist.sees("a whole number, please")
        typist.sees("cups: integer > ")
        typist.types("2\n")
        typist.sees("milk: boolean [False] > ")
        typist.types("yes\n")
        assert typist.result() == "2 cups, with milk\n"


def test_what_is_neither_yes_nor_no_is_asked_again_three_times_in_all() -> None:
    with Typist("call", ECHO, "order_coffee") as typist:
        for _ in range(2):
            typist.sees("Answer? [Y/n] ")
            typist.types("2\n")
            typist.sees("yes or no?")
        typist.sees("Answer? [Y/n] ")
        typist.types("YES\n")
        typist.sees("cups: integer > ")
    with Typist("call", ECHO, "order_coffee") as typist:
        for _ in range(3):
            typist.sees("Answer? [Y/n] ")
            typist.types("2\n")
        typist.sees("taken as no")
        assert typist.result() == "No coffee, then.\n"


@pytest.mark.parametrize("typed", ["n\n", "\x04"], ids=["no", "Ctrl-D"])
def test_a_question_may_be_declined_or_left(typed: str) -> None:
    with Typist("call", ECHO, "order_coffee") as typist:
        typist.sees("Answer? [Y/n] ")
        typist.types(typed)
        assert typist.result() == "No coffee, then.\n"


PAGE = (
    SERVER
    + "from mcpfast import Context\nserver = MCPServer('x')\n@server.tool\nasync def pay(ctx: Context) -> str:\n"
    + "    await ctx.log('warning', {'cents': 5})\n"
    + "    return (await ctx.elicit_url('Please pay', 'https://example.org/pay')).action\n"
)


@pytest.mark.parametrize(("typed", "action"), [("y\n", "accept"), ("\n", "decline")])
def test_a_page_to_open_and_log_messages_are_shown_at_the_terminal(
    typed: str, action: str, file: Any
) -> None:
    with Typist("call", file(PAGE), "pay", "--protocol", "legacy") as typist:
        typist.sees("warning: {'cents': 5}")
        typist.sees("Please pay")
        typist.sees("https://example.org/pay")
        typist.sees("Did you open it, and go on? [y/N] ")
        typist.types(typed)
        assert typist.result() == f"{action}\n"


def test_progress_is_shown_at_the_terminal() -> None:
    with Typist("call", ECHO, "count", '{"to": 4}') as typist:
        typist.sees("######..................  1/4  1 of 4")
        typist.sees("########################  4/4  4 of 4")
        assert typist.result() == "4\n"


def test_without_a_terminal_progress_is_shown_when_asked_for(
    file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    count = ("call", ECHO, "count", '{"to": 2}')
    assert said(capsys, *count) == (0, "2\n", "")
    assert said(capsys, *count, "--verbose") == (0, "2\n", "1/2  1 of 2\n2/2  2 of 2\n")
    pays = ("call", file(PAGE), "pay", "--protocol", "legacy", "-v")
    assert said(capsys, *pays) == (0, "decline\n", "warning: {'cents': 5}\n")


# ---------------------------------------------------------------------------------------------- run


def test_run_serves_several_addresses_at_once_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = tmp_path / "echo.sock"
    listen = ["--listen", f"unix://{socket}", "--listen", "tcp://127.0.0.1:0"]
    with subprocess.Popen([*COMMAND, "run", ECHO, *listen], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            told = [server.stderr.readline() for _ in range(2)]
            assert told[0] == f"mcpfast: listening on unix://{socket}\n"
            tcp = told[1].removeprefix("mcpfast: listening on ").strip()
            assert re.fullmatch(r"tcp://127\.0\.0\.1:[1-9]\d+", tcp)
            for address in (f"unix://{socket}", tcp):
                assert said(capsys, "call", address, "echo", '{"text": "hi"}') == (0, "hi\n", "")
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_S) == 0
            assert server.stderr.read() == ""
        finally:
            server.kill()
    assert not socket.exists()


def first_answer_s(command: list[str]) -> float:
    """From spawn to `initialize` answered; over stdio alone nothing is said on stderr."""
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(INITIALIZE)
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "echo"
        seconds = time.perf_counter() - begun
        _, err = server.communicate(timeout=DEADLINE_S)
        assert (server.returncode, err) == (0, b"")
    return seconds


@pytest.mark.plain_build
def test_run_starts_about_as_quickly_as_the_file_itself() -> None:
    attempts = 3  # the machine is shared
    for _ in range(attempts):
        pairs = [
            (first_answer_s([*COMMAND, "run", ECHO]), first_answer_s([sys.executable, ECHO]))
            for _ in range(5)
        ]
        ratio = min(ours for ours, _ in pairs) / min(bare for _, bare in pairs)
        if ratio < 1.3:
            return
    pytest.fail(f"mcpfast run FILE takes {ratio:.2f} of what python FILE takes, {attempts} times")


def test_who_is_asking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpfast.tenancy import new_key

    made = new_key("acme", "amy", now_s=0)
    file = tmp_path / "tenants_in_code.py"
    file.write_text(f"""
from mcpfast import Context, MCPServer, Tenancy
from mcpfast.tenancy import KeyRecord, MemoryStore, TenantRecord

key = KeyRecord(id={made.record.id!r}, sha256={made.record.sha256!r}, tenant="acme", principal="amy")
server = MCPServer("x", tenancy=Tenancy(MemoryStore([TenantRecord("acme")], keys=[key])))

@server.tool
async def who(ctx: Context) -> str:
    return ctx.principal.id
""")
    monkeypatch.setenv("KEY", made.key)
    assert said(capsys, "call", str(file), "who", "--bearer-env", "KEY") == (0, "amy\n", "")
    assert said(capsys, "call", str(file), "who", "--header", f"X-API-Key: {made.key}") == (0, "amy\n", "")
    code, out, err = said(capsys, "call", str(file), "who")
    assert (code, out) == (1, "") and "--bearer-env NAME sends the API key or token" in err
    monkeypatch.setenv("KEY", "mcpf_no")
    code, out, err = said(capsys, "call", str(file), "who", "--bearer-env", "KEY")
    assert (code, out) == (1, "") and "The API key is not valid" in err and "--bearer-env" not in err
