"""A served process as it is configured: which word is the strongest, whom stdio serves, what SIGHUP does, what ends a start.

Real processes, as `mcpfast run` starts them, over stdio and HTTP; what a wrong configuration is told is looked at in the process
that refused it.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Client, Limits, MCPError, MCPServer
from mcpfast.config import TenancySection
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import Content, MemoryStore

EXAMPLES = Path(__file__).parent.parent / "examples"
MCPFAST = [sys.executable, "-m", "mcpfast"]
DEADLINE_S = 20.0
APP = """\
import asyncio
from mcpfast import Context, Limits, MCPServer
{imports}
server = MCPServer("app"{options})

@server.tool
async def limits() -> dict[str, float]:
    return server.limits._asdict()

@server.tool
async def loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

@server.tool
async def who(ctx: Context) -> str:
    return f"{{ctx.principal.id}} of {{ctx.tenant.id}}"

@server.tool(scopes={{"write"}})
async def write() -> str:
    return "written"

if __name__ == "__main__":
    server.run({run})
"""
TENANTS = """\
[plans.team]
scopes = ["write"]
[tenants.acme]
plan = "team"
[tenants.beta]
"""
KEY_OF = {
    name: new_key(name, "ci", scopes=frozenset({"write"}), now_s=1.0) for name in ("acme", "beta", "late")
}
SECRET = "A" * 43


@pytest.fixture
def settings(tmp_path: Path) -> Callable[[str], str]:
    """Writes the file of settings; gives its name."""

    def write(text: str, name: str = "mcpfast.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., str]:
    def write(options: str = "", imports: str = "", run: str = "") -> str:
        (tmp_path / "app.py").write_text(APP.format(options=options, imports=imports, run=run))
        return str(tmp_path / "app.py")

    return write


def key_table(tenant: str) -> str:
    record = KEY_OF[tenant].record
    return f'[keys.{record.id}]\nsha256 = "{record.sha256}"\ntenant = "{tenant}"\nprincipal = "ci"\nscopes = ["write"]\n'


def environment(said: dict[str, str]) -> dict[str, str]:
    """Ours, without settings, but with what says which build is tested; and what is said."""
    tree = ("MCPFAST_TREE", "MCPFAST_BUILD")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MCPFAST_") or name in tree
    }
    return kept | said


def ask(command: list[str], asked: Callable[[Client], Awaitable[Any]], **environ: str) -> Any:
    """What a client learns of a server over stdio."""

    async def main() -> Any:
        words = [f"{name}={value}" for name, value in environ.items()]
        async with Client.stdio(["env", *words, *command], timeout_s=DEADLINE_S) as client:
            return await asked(client)

    return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


async def tools(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


def calls(tool: str) -> Callable[[Client], Awaitable[Any]]:
    async def call(client: Client) -> Any:
        return (await client.call_tool(tool, raise_on_error=True)).data

    return call


class Served:
    """A process that listens: its address, and what it writes to stderr afterwards."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._told: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ""

    def starts(self) -> None:
        self.address = self.says().split()[-1]
        while self.says() != "}\n":  # the last of what a client is configured with
            pass

    def read_all(self) -> None:
        self._reader.join(DEADLINE_S)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as err:
            for line in err:
                self._told.put(line)

    def says(self) -> str:
        """The next line of its stderr."""
        return self._told.get(timeout=DEADLINE_S)

    def ask(self, key: str, asked: Callable[[Client], Awaitable[Any]] | None = None) -> Any:
        """What a client learns that has this key, "" for none; unless `asked`, who it is taken for."""

        async def main() -> Any:
            options = {"authorization": f"Bearer {KEY_OF[key].key}"} if key else {}
            async with Client(self.address, timeout_s=DEADLINE_S, **options) as client:
                return await (asked or calls("who"))(client)

        return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))

    def becomes(self, key: str, wanted: str) -> None:
        """Asks until this is the answer, or the message of the refusal."""
        until_s = time.monotonic() + DEADLINE_S
        while (got := self._answer(key)) != wanted:
            assert time.monotonic() < until_s, f"{got!r}, and not {wanted!r}"
            time.sleep(0.02)

    def _answer(self, key: str) -> str:
        try:
            return str(self.ask(key))
        except MCPError as error:
            return error.message


@contextmanager
def served(*arguments: str, ends: int = 0, **environ: str) -> Iterator[Served]:
    """`mcpfast run ...` until SIGTERM."""
    process = subprocess.Popen(
        [*MCPFAST, "run", *arguments], stderr=subprocess.PIPE, text=True, env=environment(environ)
    )
    server = Served(process)
    try:
        server.starts()
        yield server
        assert process.poll() is None
        process.terminate()
        assert process.wait(DEADLINE_S) == ends
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        server.read_all()


HTTP = '[server]\nlisten = ["http://127.0.0.1:0"]\n'

# ---------------------------------------------------------------------------------------------- who is the strongest


def test_the_file_says_where_and_how_a_process_serves(app: Any, settings: Any) -> None:
    file = settings(HTTP + 'loop = "asyncio"\n[limits]\npage_items = 3\nthreads_max = 7\n')
    with served(app(), "--config", file) as server:
        assert server.ask("", calls("loop")) == "asyncio"
        assert server.ask("", calls("limits")) == {**Limits()._asdict(), "page_items": 3, "threads_max": 7}


def test_each_word_is_stronger_than_the_one_before(app: Any, settings: Any) -> None:
    """Default, file, environment, command line, code: here one limit is said by each of the four that can say it."""
    pytest.importorskip("uvloop")
    limits = "[limits]\npage_items = 50\nthreads_max = 7\nidle_s = 60\ndrain_s = 2\n"
    file = settings('[server]\nlisten = ["tcp://127.0.0.1:0"]\nloop = "asyncio"\n' + limits)
    environ = {
        "MCPFAST_LIMITS__IDLE_S": "61",
        "MCPFAST_LIMITS__PAGE_ITEMS": "51",
        "MCPFAST_LIMITS__DRAIN_S": "3",
    }
    environ["MCPFAST_SERVER__LISTEN"] = "tcp://127.0.0.1:0,stdio"
    code = app(options=", limits=Limits(page_items=52)")
    arguments = (code, "--config", file, "--listen", "http://127.0.0.1:0", "--loop", "uvloop")
    with served(*arguments, **environ) as server:
        assert server.address.startswith("http://")
        assert server.ask("", calls("loop")) == "uvloop"
        held = server.ask("", calls("limits"))
    wanted = {"page_items": 52, "threads_max": 7, "idle_s": 61.0, "drain_s": 3.0}
    assert {name: held[name] for name in wanted} == wanted
    with served(
        code, "--config", file, "--loop", "uvloop", MCPFAST_SERVER__LISTEN="http://127.0.0.1:0"
    ) as server:
        assert server.address.startswith("http://")


def test_a_file_run_by_itself_takes_its_settings_from_the_environment(app: Any, settings: Any) -> None:
    file = settings(HTTP + "[limits]\nthreads_max = 7\n")
    held = ask(
        [sys.executable, app(run='"stdio"')],
        calls("limits"),
        MCPFAST_CONFIG=file,
        MCPFAST_LIMITS__DRAIN_S="1",
    )
    assert (held["threads_max"], held["drain_s"]) == (7, 1.0)  # and "stdio", which the code says, holds
    other = settings("[limits]\nthreads_max = 8\n", "other.toml")
    command = [sys.executable, app(run=f"config={other!r}")]
    assert ask(command, calls("limits"), MCPFAST_CONFIG=file)["threads_max"] == 8


@asynccontextmanager
async def running(server: MCPServer[Any], *where: str, **options: Any) -> Any:
    """`serve.serve` in this process; gives the addresses."""
    from mcpfast import serve

    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve.serve(server, *where, ready=ready.set_result, **options))
    await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    yield ready.result()
    serving.cancel()
    await asyncio.wait({serving})


def test_a_server_is_afterwards_as_it_was(settings: Any) -> None:
    """So one that is served again with other settings takes none of these for what its code says."""
    file = settings(
        f'[server]\nlisten = ["tcp://127.0.0.1:0"]\nstate_keys = "k:{SECRET}"\n[limits]\nidle_s = 9\n{TENANTS}'
    )
    server: MCPServer[Any] = MCPServer("x", limits=Limits(page_items=2))

    async def main() -> None:
        async with running(server, config=file) as addresses:
            assert [address.kind for address in addresses] == ["tcp"]
            assert (server.limits.idle_s, server.limits.page_items) == (9.0, 2)
            assert server.tenancy is not None and server.tenancy.registry == file
            assert server.state_keys is not None and server.state_keys.key_ids == ("k",)

    asyncio.run(main())
    assert (server.limits, server.tenancy, server.state_keys) == (Limits(page_items=2), None, None)


def test_state_keys_of_the_file_are_shared_by_processes(app: Any, settings: Any) -> None:
    """A session id that one process sealed is opened by another with the same keys, and by none with others."""
    import urllib.error
    import urllib.request

    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}

    def post(url: str, method: str, params: Any, session: str = "") -> tuple[int, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if session:
            headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, body, headers), timeout=DEADLINE_S
            ) as answer:
                return answer.status, answer.headers.get("Mcp-Session-Id") or ""
        except urllib.error.HTTPError as refused:
            return refused.code, ""

    text = HTTP + 'state_keys = "{}"\n[http]\nsession_mode = "sealed"\n'
    one = settings(text.format(f"k:{SECRET}"), "one.toml")
    other = settings(text.format(f"k:{'B' * 42}A"), "other.toml")
    file = app()
    with served(file, "--config", one) as first, served(file, "--config", one) as second:
        _, session = post(first.address, "initialize", hello)
        assert session and post(second.address, "ping", {}, session)[0] == 200
    with served(file, "--config", other) as third:
        assert post(third.address, "ping", {}, session)[0] == 404


def status(address: str, host: str) -> int:
    """What a request under this name is answered, whatever it asks."""
    connection = http.client.HTTPConnection(*address.split("/")[2].split(":"), timeout=DEADLINE_S)
    try:
        connection.request("GET", "/elsewhere", headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def test_settings_of_http_are_for_the_addresses_they_are_for(app: Any, settings: Any) -> None:
    """What the file has for production is no mistake over stdio, nor on a loopback address without TLS."""
    text = '[http]\nssl_certfile = "none.pem"\nallowed_hosts = ["mcp.example.com"]\n'
    file = settings('[server]\nlisten = ["https://127.0.0.1:0"]\n' + text)
    assert ask([*MCPFAST, "run", app(), "--config", file, "--listen", "stdio"], calls("loop"))
    arguments = [app(), "--config", file, "--listen", "http://127.0.0.1:0"]
    with served(*arguments) as server:
        hosts = ("mcp.example.com", "other.example.com")
        assert [status(server.address, host) for host in hosts] == [404, 421]
    with served(*arguments, "--allow-host", "other.example.com") as server:
        assert [status(server.address, host) for host in hosts] == [421, 404]
    done = subprocess.run(
        [*MCPFAST, "run", app(), "--config", file], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 2 and "none.pem" in done.stderr


def test_an_asgi_application_is_configured_as_well(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server: MCPServer[Any] = MCPServer("x")
    monkeypatch.setenv(
        "MCPFAST_CONFIG", settings(f'[http]\nssl_certfile = "x"\n[limits]\nidle_s = 9\n{TENANTS}')
    )
    server.asgi_app()
    assert server.limits.idle_s == 9.0 and server.tenancy is not None
    monkeypatch.delenv("MCPFAST_CONFIG")
    other: MCPServer[Any] = MCPServer("x")
    other.asgi_app(config=settings("[limits]\nidle_s = 8\n", "other.toml"))
    assert other.limits.idle_s == 8.0


@pytest.mark.plain_build
def test_who_configures_nothing_pays_nothing() -> None:
    """Of a start, by what Python itself says it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "mcpfast", "run", str(EXAMPLES / "notes.py")]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
        env=environment({"MCPFAST_WARM_TASKS": "1"}),
    )  # fmt: skip
    loaded = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert done.returncode == 0 and "mcpfast.orders" in loaded
    unwanted = {
        "tomllib",
        "mcpfast.config",
        "mcpfast.configured",
        "mcpfast.tenancy",
        "mcpfast.server.tenants",
    }
    assert not unwanted & loaded


# ---------------------------------------------------------------------------------------------- whose it is, over stdio


def test_the_tenant_of_stdio_and_who_names_it(app: Any, settings: Any) -> None:
    file = settings(f'[tenancy]\nscopes = ["write"]\ntenant = "beta"\n{TENANTS}')
    command = [*MCPFAST, "run", app(), "--config", file]
    assert ask(command, calls("who")) == "beta of beta"
    assert ask(command, calls("who"), MCPFAST_TENANT="acme") == "acme of acme"
    assert ask([*command, "--tenant", "beta"], calls("who"), MCPFAST_TENANT="acme") == "beta of beta"
    assert ask([*command, "--tenant", "acme"], calls("who"), MCPFAST_PRINCIPAL="amy") == "amy of acme"
    assert ask(command, tools) == ["limits", "loop", "who"]
    assert ask([*command, "--tenant", "acme"], tools) == ["limits", "loop", "who", "write"]
    assert ask([*command, "--tenant", "acme"], tools, MCPFAST_TENANCY__SCOPES="read") == [
        "limits",
        "loop",
        "who",
    ]


CODE = "from mcpfast.tenancy.service import Tenancy\nfrom mcpfast.tenancy.stores import MemoryStore\n"
CODE += "from mcpfast.tenancy.identity import TenantRecord\n"
IN_CODE = ", tenancy=Tenancy(MemoryStore([TenantRecord('acme'), TenantRecord('beta')]){})"


def test_tenants_of_the_code_are_named_as_well(app: Any, settings: Any) -> None:
    file = app(IN_CODE.format(""), CODE)
    assert ask([*MCPFAST, "run", file, "--tenant", "acme"], calls("who")) == "acme of acme"
    assert ask([sys.executable, file], calls("who"), MCPFAST_TENANT="beta") == "beta of beta"
    assert ask(
        [sys.executable, file], calls("who"), MCPFAST_CONFIG=settings("[tenancy]\ntenant = 'beta'\n")
    ) == ("beta of beta")
    file = app(IN_CODE.format(", tenant='acme'"), CODE)
    assert ask([*MCPFAST, "run", file], calls("who"), MCPFAST_TENANT="beta") == "acme of acme"
    done = refused(file, "--tenant", "beta")
    assert done == "--tenant beta: the code says 'acme', which is stronger: take one of the two away"


def test_who_names_no_tenant_is_told_and_refused(app: Any, settings: Any) -> None:
    process = subprocess.run(
        [*MCPFAST, "run", app(), "--config", settings(TENANTS)],
        input='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
        '"clientInfo":{"name":"x","version":"1"}}}\n',
        capture_output=True, text=True, timeout=DEADLINE_S, env=environment({}),
    )  # fmt: skip
    assert (
        process.stderr
        == "nobody is let in over stdio: name a tenant (--tenant, MCPFAST_TENANT), or set MCPFAST_API_KEY\n"
    )
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert {answer["error"]["message"] for answer in answers} == {"This needs credentials"}


# ---------------------------------------------------------------------------------------------- what ends a start


def refused(*arguments: str, **environ: str) -> str:
    """What is told in the one line of a process that does not start."""
    done = subprocess.run(
        [*MCPFAST, "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=DEADLINE_S, env=environment(environ),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("mcpfast: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("mcpfast: ").rstrip()


NO_TENANTS = (
    "there are no tenants here: write [tenants] into the settings, or tenancy.registry, where they are"
)
ISSUER = '[tenancy.issuers.login]\nissuer = "https://login.example.com"\naudiences = ["x"]\ntenant = "acme"\n'
WRONG: dict[str, tuple[str, list[str], dict[str, str], str]] = {
    "unknown tenant": (TENANTS, ["--tenant", "acm"], {}, "tenancy.tenant): there is no tenant 'acm'; did you mean 'acme'?"),
    "unknown, by the environment": (TENANTS, [], {"MCPFAST_TENANT": "x"}, "there is no tenant 'x'; there is 'acme', 'beta'"),
    "unknown, by the file": ("[tenancy]\ntenant = 'x'\n" + TENANTS, [], {}, "there is no tenant 'x'; there is 'acme', 'beta'"),
    "no tenants": ("", ["--tenant", "acme"], {}, f"command line: tenancy.tenant: {NO_TENANTS}"),
    "no tenants, by the environment": ("", [], {"MCPFAST_TENANT": "a"}, "MCPFAST_TENANT=a: this server has no tenants, and"),
    "tenant over HTTP": (TENANTS, ["--tenant", "acme", "--listen", "http://127.0.0.1:0"], {}, "--tenant acme: it is for stdio"),
    "issuers of nobody": (ISSUER, [], {}, f"mcpfast.toml:2: tenancy.issuers.login.issuer: {NO_TENANTS}"),
    "plan": ("[tenants.acme]\nplan = 'taem'\n[plans.team]\n", [], {}, ":2: tenants.acme.plan: there is no plan 'taem'; did you m"),
    "field": ("[tenants.acme]\nplann = 'x'\n", [], {}, ":2: tenants.acme.plann: there is no such name; did you mean 'plan'?"),
    "quota": ("[tenants.acme]\nquota = { calls_per_s = -1 }\n", [], {}, ":2: tenants.acme.quota.calls_per_s: 0 (no limit) or"),
    "syntax": ("[tenants.acme\n", [], {}, "mcpfast.toml: Expected ']' at the end of a table declaration (at line 1"),
    "setting": ("[limits]\nidles = 1\n", [], {}, ":2: limits.idles: there is no such name; did you mean 'idle_s'?"),
    "variable": ("", [], {"MCPFAST_LIMITS__IDLE_S": "x"}, "MCPFAST_LIMITS__IDLE_S: limits.idle_s: Expected `float`"),
    "registry": ("[tenancy]\nregistry = 'none.toml'\n", [], {}, "none.toml: no such file"),
    "audit": ("[tenancy]\naudit = 'none/log'\n" + TENANTS, [], {}, "every change leaves a record there"),
    "state keys": ("[server]\nstate_keys = 'k:short'\n", [], {}, "mcpfast.toml:2: server.state_keys: "),
    "address": ("[server]\nlisten = ['htp://x']\n", [], {}, ":2: server.listen: 'htp://x' is no address"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "arguments", "environ", "told"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_ends_the_start_with_one_line(
    app: Any, settings: Any, text: str, arguments: list[str], environ: dict[str, str], told: str
) -> None:
    assert told in refused(app(), "--config", settings(text), *arguments, **environ)


def test_a_registry_of_its_own_is_told_with_its_line(app: Any, settings: Any) -> None:
    registry = settings("[tenants.acme]\n\n[tenants.beta]\nkind = 'organisation'\n", "tenants.toml")
    file = settings('[tenancy]\nregistry = "tenants.toml"\n')
    told = refused(app(), "--config", file)
    assert (
        told
        == f"{registry}:4: tenants.beta.kind: 'organisation' is none of its values; did you mean 'organization'?"
    )


def test_a_lifespan_is_left_where_the_registry_cannot_be_read(settings: Any) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(server: Any) -> Any:
        seen.append("begun")
        try:
            yield
        finally:
            seen.append("ended")

    async def main() -> None:
        server: MCPServer[Any] = MCPServer("x", lifespan=lifespan)
        with pytest.raises(ConfigurationError, match="there is no plan 'x'"):
            await server.run_async("tcp://127.0.0.1:0", config=settings("[tenants.a]\nplan = 'x'\n"))
        assert seen == ["begun", "ended"]  # now, not when the loop is closed

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------- a registry that changes

NEVER = "[tenancy]\nlook_s = 100_000\n"


def test_sighup_reads_the_tenants_anew_and_a_broken_file_changes_nothing(app: Any, settings: Any) -> None:
    text = HTTP + NEVER + TENANTS + key_table("acme") + key_table("beta")
    file = settings(text)
    with served(app(), "--config", file) as server:
        assert server.ask("acme") == "ci of acme"
        settings(text + "[tenants.late]\n" + key_table("late"))
        assert server._answer("late") == "The API key is not valid"  # nobody looks by himself
        server.process.send_signal(signal.SIGHUP)
        server.becomes("late", "ci of late")
        settings(text.replace("[tenants.beta]", "[tenants.beta]\nplan = 'taem'"))
        for _ in range(2):  # told each time that somebody asks
            server.process.send_signal(signal.SIGHUP)
            told = server.says()
            assert told.startswith(
                f"tenants stay as they are: {file}:10: tenants.beta.plan: there is no plan 'taem'; did"
            )
        assert server.ask("late") == "ci of late"
        settings(text.replace("[tenants.beta]", '[tenants.beta]\nstate = "suspended"'))
        for _ in range(20):  # in the middle of reading, too
            server.process.send_signal(signal.SIGHUP)
        server.becomes("beta", "This tenant is suspended; whoever runs this server can say why")
        server.becomes("late", "The API key is not valid")
        assert server.ask("acme") == "ci of acme"


class SlowStore(MemoryStore):
    """Says what it had when it was asked, when it may."""

    def __init__(self) -> None:
        super().__init__([TenantRecord("acme")])
        self.loads = 0
        self.may = asyncio.Event()
        self.may.set()

    async def load(self) -> Content:
        self.loads += 1
        content = await super().load()
        await self.may.wait()
        return content


def test_sighup_while_the_tenants_are_read_has_them_read_once_more() -> None:
    async def main() -> None:
        store = SlowStore()
        server: MCPServer[Any] = MCPServer("x", tenancy=Tenancy(store, look_s=1e5))
        async with asyncio.timeout(DEADLINE_S), running(server, "tcp://127.0.0.1:0", signals=True):
            assert store.loads == 1
            store.may.clear()
            os.kill(os.getpid(), signal.SIGHUP)
            while store.loads < 2:
                await asyncio.sleep(0)
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.01)
            store.may.set()
            while store.loads < 3:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            assert store.loads == 3

    asyncio.run(main())


def test_a_change_is_noticed_without_a_signal(app: Any, settings: Any) -> None:
    text = HTTP + TENANTS + key_table("acme")
    file = settings(text)
    with served(app(), "--config", file, MCPFAST_TENANCY__LOOK_S="0.05") as server:
        assert server.ask("acme") == "ci of acme"
        settings(text.replace("[tenants.acme]", '[tenants.acme]\nstate = "suspended"'))
        server.becomes("acme", "This tenant is suspended; whoever runs this server can say why")
        done = subprocess.run(
            [*MCPFAST, "tenant", "resume", "acme", "--config", file], capture_output=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0
        server.becomes("acme", "ci of acme")


def test_sighup_ends_a_server_without_tenants(app: Any, settings: Any) -> None:
    command = [*MCPFAST, "run", app(), "--config", settings(HTTP)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment({})) as process:
        try:
            assert process.stderr is not None and "listening on" in process.stderr.readline()
            process.send_signal(signal.SIGHUP)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("tenants", [False, True])
def test_signals_mean_afterwards_what_they_meant_before(tenants: bool) -> None:
    def theirs(number: int, frame: object) -> None:
        """Somebody's own handler."""

    tenancy = Tenancy(MemoryStore([TenantRecord("acme")])) if tenants else None
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, theirs) for number in numbers}
    try:
        server: MCPServer[Any] = MCPServer("x", tenancy=tenancy)
        server.run("tcp://127.0.0.1:0", ready=lambda addresses: os.kill(os.getpid(), signal.SIGTERM))
        assert [signal.getsignal(number) for number in numbers] == [theirs] * 3
    finally:
        for number, meant in before.items():
            signal.signal(number, meant)


def test_a_thread_of_somebody_elses_is_told_of_no_signal(settings: Any) -> None:
    """There SIGHUP stays what it is; the file is watched all the same."""
    before = signal.getsignal(signal.SIGHUP)

    async def main() -> None:
        async with running(MCPServer("x"), "tcp://127.0.0.1:0", config=settings(TENANTS), signals=True):
            assert signal.getsignal(signal.SIGHUP) is before

    failed: list[BaseException] = []

    def in_thread() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive() and not failed


# ---------------------------------------------------------------------------------------------- all of it can be said


def test_a_file_can_say_all_of_a_tenancy_but_code() -> None:
    said = {name for name in inspect.signature(Tenancy.__init__).parameters if name != "self"}
    assert said - {"resolvers"} == set(TenancySection.__struct_fields__)
    made, section = Tenancy(MemoryStore()), TenancySection()
    for name in said - {"registry", "resolvers", "issuers"}:
        assert getattr(made, name) == getattr(section, name), name


def test_the_file_adds_to_tenants_of_the_code(settings: Any) -> None:
    """Whatever the code leaves at its default; the store and the resolvers are the code's."""
    mine = Issuer(issuer="https://mine", audiences=("x",), tenant="acme", subject_prefix="mine/")
    store = MemoryStore([TenantRecord("acme")])
    tenancy = Tenancy(store, resolvers=[object()], scopes={"a"}, issuers=[mine])  # type: ignore[list-item]
    server: MCPServer[Any] = MCPServer("x", tenancy=tenancy)
    text = (
        '[tenancy]\nscopes = ["b"]\nscopes_asked = ["c"]\nlook_s = 7\ndrain_s = 8\nregistry = "none.toml"\n'
    )
    with pytest.raises(ConfigurationError, match="speak for the same tenants"):
        server.asgi_app(config=settings(text + ISSUER))
    server.asgi_app(config=settings(text + ISSUER + 'subject_prefix = "login/"\n'))
    made = server.tenancy
    assert made is not None and made is not tenancy and made.store is store
    assert made.resolvers == tenancy.resolvers and made.scopes == {"a"} and made.scopes_asked == {"c"}
    assert (made.look_s, made.drain_s, made.audit) == (7.0, 8.0, "")
    assert [issuer.issuer for issuer in made.issuers] == ["https://login.example.com", "https://mine"]
    assert tenancy.look_s == 1.0


def shown(*arguments: str) -> dict[str, tuple[str, str]]:
    done = subprocess.run(
        [*MCPFAST, "config", "show", "--json", *arguments], capture_output=True, text=True, timeout=DEADLINE_S,
        env=environment({"MCPFAST_TENANT": "acme"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sections = json.loads(done.stdout).items()
    return {
        f"{section}.{name}": (one["value"], one["source"])
        for section, held in sections
        for name, one in held.items()
    }


def test_show_says_what_the_code_says(app: Any, settings: Any) -> None:
    file = settings(
        f"[limits]\nidle_s = 5\npage_items = 6\n[tenancy]\nlook_s = 2\ntenant = 'beta'\n{TENANTS}"
    )
    rows = shown("--config", file)
    assert rows["limits.page_items"] == (6, f"{file}:3") and rows["tenancy.tenant"] == (
        "acme",
        "MCPFAST_TENANT",
    )
    options = ", limits=Limits(page_items=7, threads_max=3)" + IN_CODE.format(", look_s=3.0")
    rows = shown(app(options, CODE), "--config", file)
    assert rows["limits.page_items"] == (7, "code") and rows["limits.threads_max"] == (3, "code")
    assert rows["limits.idle_s"] == (5.0, f"{file}:2") and rows["tenancy.look_s"] == (3.0, "code")
    assert rows["tenancy.registry"] == ("MemoryStore", "code") and rows["tenancy.tenant"] == (
        "acme",
        "MCPFAST_TENANT",
    )


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        ("", 0, "the environment: good\nMemoryStore: good: 0 plans, 2 tenants, 0 keys\n"),
        ("raise KeyError('x')\n", 1, "KeyError: 'x'"),
        ("server = 1\n", 2, "mcpfast config: {file} makes no MCPServer"),
    ],
)
def test_check_looks_at_the_code_as_well(app: Any, source: str, code: int, told: str) -> None:
    file = app(IN_CODE.format(""), CODE)
    if source:
        Path(file).write_text(source)
    done = subprocess.run(
        [*MCPFAST, "config", "check", file],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment({}),
    )
    assert done.returncode == code and told.format(file=file) in done.stdout + done.stderr
