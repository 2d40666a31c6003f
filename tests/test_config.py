"""Settings: which layer wins, who said what, what is told of a mistake, and that no secret is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpfast import cli, config
from mcpfast.limits import Limits
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.transports.web.settings import HttpSettings

FILE = """\
[server]
listen = ["http://127.0.0.1:8000"]

[limits]
frame_bytes_max = 1_000
idle_s = 5

[http]
allowed_hosts = ["example.com"]
"""
ISSUER = """
[tenancy.issuers.login]
issuer = "https://login.example.com"
audiences = ["https://mcp.example.com"]
tenant = "acme"
"""
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "mcpfast.toml"
    made.write_text(FILE)
    return made


def load(file: Path | None = None, **environ: str) -> config.Configuration:
    return config.load(file, environ=environ)


# ---------------------------------------------------------------------------------------------- layers


def test_without_anything_the_defaults_hold() -> None:
    held = load()
    assert held.limits == Limits() and held.http == HttpSettings() and held.server.listen == ("stdio",)
    assert (held.registry, held.file, dict(held.sources)) == ("", None, {})
    assert {source for _, _, source in held.settings()} == {"default"}


def test_each_layer_is_stronger_than_the_one_before(file: Path) -> None:
    environ = {
        "MCPFAST_LIMITS__FRAME_BYTES_MAX": "2000",
        "MCPFAST_LIMITS__IDLE_S": "6.5",
        "MCPFAST_LIMITS__PAGE_ITEMS": "7",
    }
    held = config.load(
        file,
        environ=environ,
        arguments={"limits": {"idle_s": 8.0, "page_items": 9}, "server": {"listen": ["stdio"]}},
        code={"limits": {"page_items": 10}},
    )
    assert (held.limits.frame_bytes_max, held.limits.idle_s, held.limits.page_items) == (2_000, 8.0, 10)
    assert held.server.listen == ("stdio",) and held.http.allowed_hosts == ["example.com"]
    said = {path: source for path, _, source in held.settings() if source != "default"}
    assert said == {
        "server.listen": "command line",
        "limits.frame_bytes_max": "MCPFAST_LIMITS__FRAME_BYTES_MAX",
        "limits.idle_s": "command line",
        "limits.page_items": "code",
        "http.allowed_hosts": f"{file}:9",
    }


def test_the_environment_names_the_file(file: Path) -> None:
    assert load(MCPFAST_CONFIG=str(file)).limits.frame_bytes_max == 1_000
    assert load(MCPFAST_CONFIG="").file is None


def test_no_file_is_looked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may start a server in a directory that somebody else filled."""
    monkeypatch.chdir(file.parent)
    assert load().file is None


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("stdio", ("stdio",)),
        ("stdio, tcp://127.0.0.1:9", ("stdio", "tcp://127.0.0.1:9")),
        ('["stdio"]', ("stdio",)),
        ("stdio,", ("stdio",)),
        ("", ()),
    ],
)
def test_a_list_in_the_environment(text: str, listen: tuple[str, ...]) -> None:
    assert load(MCPFAST_SERVER__LISTEN=text).server.listen == listen


def test_what_is_not_ours_is_not_looked_at() -> None:
    assert load(MCPFAST_WARM_TASKS="0", MCPFAST_BUILD="x", PATH="/", LIMITS__X="1").sources == {}


def test_every_limit_and_every_http_setting_can_be_set() -> None:
    environ = {f"MCPFAST_LIMITS__{name.upper()}": "3" for name in Limits._fields}
    assert load(**environ).limits == Limits(*[3] * len(Limits._fields))
    assert set(config.HttpSection.__struct_fields__) == set(HttpSettings._fields)


def test_tables_and_texts_in_the_environment() -> None:
    held = load(
        MCPFAST_TENANCY__ISSUERS='{"a": {"issuer": "i", "audiences": ["b"], "tenant": "t"}}',
        MCPFAST_HTTP__SSL_CERTFILE="c",
    )
    assert held.tenancy.issuers["a"].issuer == "i" and held.http.ssl_certfile == "c"
    assert held.source("tenancy.issuers.a.issuer") == "MCPFAST_TENANCY__ISSUERS"


def test_issuers_and_their_secrets(file: Path) -> None:
    file.write_text(FILE + ISSUER)
    for said, meant in (
        (SECRET, SECRET.encode()),
        (f"base64:{SECRET}", b"secret-secret-secret-secret-secret"),
    ):
        held = load(file, MCPFAST_TENANCY__ISSUERS__LOGIN__SECRET=said)
        issuer = held.tenancy.issuers["login"]
        assert issuer.tenant == "acme" and issuer.secret == meant  # a text that looks like base64 is a text
    for said, words in (
        ("base64:c2V", "after base64: base64 is wanted"),
        ("c2VjcmV0", "at least 32 bytes, not 8"),
    ):
        with pytest.raises(ConfigurationError, match=words) as told:
            load(file, MCPFAST_TENANCY__ISSUERS__LOGIN__SECRET=said)
        assert "tenancy.issuers.login" in str(told.value) and "c2V" not in str(told.value)


def test_the_registry_is_named_from_the_file_or_stands_in_it(file: Path) -> None:
    file.write_text('[tenancy]\nregistry = "tenants.toml"\n')
    assert load(file).registry == str(file.parent / "tenants.toml")
    assert load(file, MCPFAST_TENANCY__REGISTRY="other.toml").registry == "other.toml"  # from where we are
    assert load(file, MCPFAST_TENANCY__REGISTRY="sqlite:////srv/t.db").registry == "sqlite:////srv/t.db"
    file.write_text("[tenants.acme]\n")
    assert load(file).registry == str(file)
    with pytest.raises(ConfigurationError, match="stand in the file of settings already"):
        load(file, MCPFAST_TENANCY__REGISTRY="x.toml")


# ---------------------------------------------------------------------------------------------- mistakes

MISTAKES = {
    "section": ("[limit]\nidle_s = 1\n", {}, ":2: limit: there is no such section; did you mean 'limits'?"),
    "section of the registry": ("[tenents.acme]\nplan = 1\n", {}, ":2: tenents: there is no such section; did you mean 'tenants'?"),
    "name": ("\n[limits]\nframe_byte_max = 1\n", {}, "limits.frame_byte_max: there is no such name; did you mean 'frame"),
    "type": ("[limits]\nidle_s = []\n", {}, ":2: limits.idle_s: Expected `float`, got `array`"),
    "negative": ("[limits]\nidle_s = -1\n", {}, ":2: limits.idle_s: -1.0 is less than 0"),
    "no table": ("limits = 1\n", {}, ":1: limits: Expected `object`, got `int`"),
    "loop": ("[server]\nloop = 'uvlop'\n", {}, ":2: server.loop: 'uvlop' is none of its values; did you mean 'uvloop'?"),
    "address": ("[server]\nlisten = ['htp://x']\n", {}, ":2: server.listen: 'htp://x' is no address"),
    "http": ("[http]\nsession_mode = 'on'\n", {}, ":2: http.session_mode: session_mode must be one of 'stateful', 'sealed', 'off'"),
    "issuer": ("[tenancy.issuers.a]\nissuer = 'x'\n", {}, ":2: tenancy.issuers.a: Object missing required field `audiences`"),
    "issuer's name": ("[tenancy.issuers.a]\nissuers = 'x'\n", {}, ":2: tenancy.issuers.a.issuers: there is no such name; did"),
    "seconds": ("[tenancy]\ndrain_s = nan\n", {}, ":2: tenancy.drain_s: 0 or more seconds are wanted"),
    "syntax": ("[limits\n", {}, "(at line 1, column 8)"),
    "variable's section": ("", {"MCPFAST_LIMIT__IDLE_S": "1"}, "MCPFAST_LIMIT__IDLE_S: limit: there is no such section"),
    "variable of the registry": ("", {"MCPFAST_TENANTS__ACME": "1"}, "MCPFAST_TENANTS__ACME: tenants: [tenants] stands in a file"),
    "variable's name": ("", {"MCPFAST_LIMITS__IDLES": "1"}, "MCPFAST_LIMITS__IDLES: limits.idles: there is no such name"),
    "variable's value": ("", {"MCPFAST_LIMITS__IDLE_S": "x"}, "MCPFAST_LIMITS__IDLE_S: limits.idle_s: Expected `float`"),
    "variable's list": ("", {"MCPFAST_SERVER__LISTEN": "[x"}, "MCPFAST_SERVER__LISTEN: server.listen: Expected `array`"),
    "variable in a variable": ("", {"MCPFAST_SERVER__LOOP": "auto", "MCPFAST_SERVER__LOOP__X": "1"}, "__X: what it belongs to"),
    "variable, not file": ("[limits]\nidle_s = 1\n", {"MCPFAST_LIMITS__IDLE_S": "-2"}, "MCPFAST_LIMITS__IDLE_S: limits.idle_s"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "environ", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], told: str
) -> None:
    file = tmp_path / "mcpfast.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load(file, **environ)
    assert told in str(refused.value)
    assert str(refused.value).startswith(next(iter(environ), str(file)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load(tmp_path / "none.toml")


def test_arguments_are_checked_as_well() -> None:
    with pytest.raises(ConfigurationError, match=r"command line: limits\.idle_s"):
        config.load(environ={}, arguments={"limits": {"idle_s": -1}})


# ---------------------------------------------------------------------------------------------- the command


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    return code, *capsys.readouterr()


def test_show_says_what_holds_and_from_where(
    file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPFAST_LIMITS__PAGE_ITEMS", "7")
    code, out, err = said(capsys, "config", "show", "--config", str(file))
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert rows["limits.page_items"] == "MCPFAST_LIMITS__PAGE_ITEMS" and rows["limits.idle_s"] == f"{file}:6"
    assert rows["limits.threads_max"] == "default" and len(rows) > 40
    _, out, _ = said(capsys, "config", "show", "--config", str(file), "--changed")
    assert len(out.splitlines()) == 1 + 5
    _, out, _ = said(capsys, "config", "show", "--config", str(file), "--json")
    assert json.loads(out)["limits"]["idle_s"] == {"value": 5.0, "source": f"{file}:6"}


def test_no_secret_is_shown(file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(FILE + ISSUER)
    monkeypatch.setenv("MCPFAST_STATE_KEYS", "k1:dGhlc2VjcmV0")
    monkeypatch.setenv("MCPFAST_TENANCY__ISSUERS__LOGIN__SECRET", SECRET)
    monkeypatch.setenv("MCPFAST_TENANCY__REGISTRY", "redis://me:pass%40word@host/0")
    for more in ([], ["--json"], ["--changed"]):
        code, out, err = said(capsys, "config", "show", "--config", str(file), *more)
        assert code == 0 and out.count("********") == 3
        assert not any(secret in out + err for secret in ("dGhl", SECRET, "secret-secret", "pass%40word"))
    monkeypatch.setenv("MCPFAST_TENANCY__ISSUERS__LOGIN__SECRET", "base64:{" + SECRET)
    code, out, err = said(capsys, "config", "show", "--config", str(file))
    assert code == 1 and SECRET not in out + err


def test_check_reads_the_registry_as_well(file: Path, capsys: Any) -> None:
    file.write_text(FILE + "[plans.team]\n[tenants.acme]\nplan = 'team'\n[tenants.ann]\n")
    code, out, _ = said(capsys, "config", "check", "--config", str(file))
    assert code == 0 and out == f"{file}: good\n{file}: good: 1 plan, 2 tenants, 0 keys\n"
    file.write_text(FILE + "[tenants.acme]\nplan = 'team'\n")
    code, _, err = said(capsys, "config", "check", "--config", str(file))
    assert code == 1 and f"mcpfast config: {file}:11: tenants.acme.plan: there is no plan 'team'" in err


@pytest.mark.parametrize(
    "arguments", [["config"], ["config", "sho"], ["config", "show", "--nope"], ["config", "show", "--", "x"]]
)
def test_wrong_usage(arguments: list[str], capsys: Any) -> None:
    code, out, err = said(capsys, *arguments)
    assert code == 2 and err.startswith("mcpfast config") and not out


def test_a_mistake_ends_a_real_process_with_one_line(file: Path) -> None:
    file.write_text("[limits]\nidles = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "mcpfast", "config", "check", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "did you mean 'idle_s'?" in done.stderr


@pytest.mark.plain_build  # to count coverage imports more
def test_a_server_that_asks_for_no_settings_loads_none() -> None:
    code = "import sys, mcpfast.cli, mcpfast.serve; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    ).stdout.split()
    assert "mcpfast.serve" in loaded
    assert not {
        "mcpfast.config",
        "mcpfast.commands",
        "mcpfast.tenancy",
        "tomllib",
        "tomlkit",
        "sqlite3",
    } & set(loaded)
