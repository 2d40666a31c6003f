"""The instruments of the tenants' figures: servers that have none are caught, and each figure measures what it says."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
pytest.importorskip("joserfc", reason="pip install 'mcpfast[auth]'")
sys.path.append(str(ROOT))

from benches import figures_tenants, registries
from benches.figures import FIGURES, Measured, Setting
from benches.figures_tenants import (
    RELOADING,
    WITH,
    at_rest,
    check_guarded,
    check_neighbours,
    http,
    listed,
    said,
)
from benches.http_messages import ask
from benches.load import HTTP_LEGACY, MODERN, RunFailed, Shape, connect, drive, drive_beside, planned, serving
from benches.nginx import free_address
from mcpfast.bench.result import Result
from mcpfast.bench.target import target_of
from mcpfast.tenancy.toml_file import content_of

SHORT = Setting(rounds=1, seconds=0.1)


@pytest.fixture(scope="module")
def on() -> Iterator[str]:
    with http(str(registries.ONE_TENANT), 20) as (address, _):
        yield address


@pytest.fixture(scope="module")
def off() -> Iterator[str]:
    with http("none", 20) as (address, _):
        yield address


# ---- what is measured against ----------------------------------------------------------------------------


def test_a_server_with_tenants_lets_in_who_it_should_and_nobody_else(on: str) -> None:
    check_guarded(on)
    for era in (MODERN, HTTP_LEGACY):
        shape = Shape(connections=4, era=era, credentials=(registries.token(),))
        assert drive(shape, on, calls=200).errors == 0
        with pytest.raises(RunFailed):
            drive(Shape(connections=4, era=era), on, calls=200)


def test_a_server_without_tenants_is_not_measured_as_one_that_has_them(off: str) -> None:
    assert (
        drive(Shape(connections=4, era=MODERN, credentials=(registries.token(),)), off, calls=200).errors == 0
    )
    with pytest.raises(RunFailed, match="answers 200 where 401 is right"):
        check_guarded(off)


def test_over_stdio_the_tenant_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(Shape(window=8), WITH, calls=200).errors == 0
    monkeypatch.setenv("MCPFAST_TENANT", "nobody")
    with pytest.raises(RunFailed):
        drive(Shape(window=8), WITH, calls=200)


def test_both_list_the_same_and_only_one_hides_something(on: str, off: str) -> None:
    filtered, whole = listed(on, registries.token()), listed(off, registries.token())
    assert filtered["tools"] == whole["tools"]
    assert len(filtered["tools"]) == 20 + 2  # with `echo` and `rest`
    assert filtered["cacheScope"] == "private"
    hidden = figures_tenants.call(on, registries.token(), "tool_20")
    with connect(on) as connection:
        assert b'"error"' in ask(connection, hidden).body


# ---- registries and credentials ---------------------------------------------------------------------------


def test_a_crowd_is_read_as_it_is_meant() -> None:
    crowd = registries.crowd(3, 7)
    content = content_of(tomllib.loads(crowd.text))
    assert list(content.tenants) == ["tenant-0", "tenant-1", "tenant-2"]
    assert [key.tenant[-1] for key in content.keys.values()] == list("0120120")
    assert len(set(crowd.credentials)) == 7
    assert len(set(map(len, crowd.credentials))) == 1
    assert (
        registries.crowd(1, 7).credentials == crowd.credentials
    )  # whoever owns them: the same bytes are sent


def test_calls_go_around_the_credentials() -> None:
    crowd = registries.crowd(3, 3)
    target = target_of("http://127.0.0.1:1/mcp")
    plan = planned(Shape(era=HTTP_LEGACY, credentials=crowd.credentials), target)
    assert [crowd.credentials[0].encode() in plan.steps[index].data for index in plan.prologue] == [
        True,
        True,
    ]
    sent = [plan.steps[index].data for index in plan.body]
    assert [[one.encode() in data for one in crowd.credentials] for data in sent] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_every_tenant_of_a_crowd_is_served() -> None:
    crowd = registries.crowd(50, 50)
    with registries.kept(crowd.text) as file, http(file) as (address, pid):
        run = drive(figures_tenants.everybody(crowd), address, calls=200, pid=pid)
        assert (run.requests, run.errors) == (200, 0)
        assert at_rest(address, pid, crowd) > 10e6
        stranger = registries.Registry("", tuple(registries.key("x", "y", Random(2))[1] for _ in range(2)))
        with pytest.raises(RunFailed):
            drive(figures_tenants.everybody(stranger), address, calls=200, pid=pid)


# ---- neighbours -------------------------------------------------------------------------------------------


def test_a_neighbour_is_refused_and_the_quiet_one_is_not() -> None:
    with registries.kept(figures_tenants.neighbours()[0]) as file, http(file) as (address, pid):
        _, quiet, loud = figures_tenants.neighbours()
        run = drive_beside(address, quiet, loud, rate=200, times=50, seconds=0.5, pid=pid)
        check_neighbours(run)
        assert {one["name"] for one in run.kinds} == {"quiet", "loud"}
        alone = drive_beside(address, quiet, loud, rate=200, times=0, seconds=0.3, pid=pid)
        assert figures_tenants.kind(alone, "loud")["refused"] == 0
        with pytest.raises(RunFailed, match="of the quiet one's calls"):
            check_neighbours(alone)


def test_a_quiet_tenant_that_is_refused_is_no_figure() -> None:
    kinds = [{"name": "quiet", "requests": 9, "refused": 1}, {"name": "loud", "requests": 1, "refused": 90}]
    with pytest.raises(RunFailed, match="1 of the quiet one's calls"):
        check_neighbours(cast("Result", SimpleNamespace(kinds=kinds)))


# ---- a new registry while serving -------------------------------------------------------------------------


def test_a_loop_that_stood_still_is_seen() -> None:
    crowd = registries.crowd(3, 1, deny="odd")
    address = free_address()
    with (
        registries.kept(crowd.text) as file,
        serving([*RELOADING, file], address),
        connect(address) as connection,
    ):
        key = crowd.credentials[0]
        said(connection, address, "longest_us", key)
        said(connection, address, "stand_still", key)
        assert float(said(connection, address, "longest_us", key)) >= 50_000
        assert b'"error"' in ask(connection, figures_tenants.call(address, key, "odd")).body
        Path(file).write_text(registries.crowd(3, 1, deny="even").text)
        figures_tenants.await_tool(connection, address, "odd", key)
        assert b'"error"' in ask(connection, figures_tenants.call(address, key, "even")).body


# ---- the figures ------------------------------------------------------------------------------------------


@pytest.mark.plain_build  # a server that is counted line by line serves no quota of a thousand a second
@pytest.mark.parametrize(
    "name",
    [
        "tenants_http",
        "tenants_http_legacy",
        "tenants_stdio",
        "tenants_stdio_serial",
        "tenants_10000",
        "tenant_memory",
        "tenants_quiet_p99",
        "tenants_list",
        "tenants_reload",
    ],
)
def test_each_figure_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bars are for `make bench`; here a figure is had at all, from a crowd that is small."""
    monkeypatch.setattr(figures_tenants, "MANY", 300)
    measured: Measured = FIGURES[name](SHORT)
    assert 0 < measured.value < 1_000


def test_a_reload_that_never_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_tenants, "RELOAD_S", 0.3)
    monkeypatch.setattr(figures_tenants, "replace_file", lambda file, text: None)
    monkeypatch.setattr(figures_tenants, "MANY", 10)
    with pytest.raises(RunFailed, match="a reload of 10 tenants took more"):
        FIGURES["tenants_reload"](SHORT)
