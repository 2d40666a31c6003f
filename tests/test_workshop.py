"""The workshop itself: stubs, floors of the compiled rooms, what an import costs, preflight, locks, gates."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mcpfast

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(mcpfast.__file__).parent
STUBS = sorted(PACKAGE.glob("_*.pyi"))
SOURCES = sorted((ROOT / "mcpfast").glob("_*.pyx"))
in_work_tree = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="an installed package is under test, without its sources"
)


def python(code: str) -> str:
    """What a fresh interpreter prints for `code`; without the measuring of coverage, which loads half the library."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# ------------------------------------------------------------------------------------------------ stubs


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a stub declares in a module or a class."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
    return found


def defined_here(module: Any) -> dict[str, Any]:
    """Public names of a compiled module that are its own, not imported."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", module.__name__) == module.__name__
    }


def parameters_in_source(source: str, owner: str | None, function: str) -> list[str] | None:
    """The parameter names of `def function` in a .pyx (of class `owner`), None where there is no such def."""
    if owner is not None:
        begun = re.search(rf"^cdef class {owner}\b.*?:$(.*?)(?=^\S|\Z)", source, re.S | re.M)
        source = begun.group(1) if begun else ""
    indent = "    " if owner else ""
    found = re.search(rf"^{indent}def {function}\((.*?)\):$", source, re.S | re.M)
    if found is None:
        return None
    text = re.sub(r"\[[^\]]*\]", "", found.group(1))  # `const unsigned char[::1] data`
    parts = [part.split("=")[0].replace(" not None", "").split() for part in text.split(",") if part.strip()]
    return [part[-1].lstrip("*") for part in parts]


def parameters_in_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [argument.arg for argument in every if argument is not None]


def test_every_compiled_room_has_a_stub() -> None:
    compiled = {file.name.split(".")[0] for file in PACKAGE.glob("_*.so")}
    assert compiled
    assert compiled == {stub.stem for stub in STUBS}


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_the_stub_names_what_the_module_has(stub: Path) -> None:
    module = importlib.import_module(f"mcpfast.{stub.stem}")
    declared = stub_names(ast.parse(stub.read_text()).body)
    own = defined_here(module)
    assert public(declared) == set(own)
    for name, statement in declared.items():
        if isinstance(statement, ast.ClassDef):
            members = public(stub_names(statement.body))
            overridden = {member for base in own[name].__mro__[1:] for member in vars(base)} - members
            assert members == public(vars(own[name])) - overridden, f"{stub.stem}.{name}"


@in_work_tree
@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_the_stub_takes_what_the_module_takes(stub: Path) -> None:
    source = (ROOT / "mcpfast" / f"{stub.stem}.pyx").read_text()
    for name, statement in stub_names(ast.parse(stub.read_text()).body).items():
        if isinstance(statement, ast.FunctionDef):
            assert parameters_in_stub(statement) == parameters_in_source(source, None, name), name
        elif isinstance(statement, ast.ClassDef):
            for method, inner in stub_names(statement.body).items():
                if (
                    isinstance(inner, ast.FunctionDef) and method != "__buffer__"
                ):  # Cython's name for it is another
                    written = parameters_in_source(source, name, method)
                    if method == "__init__" and written is None:
                        written = parameters_in_source(source, name, "__cinit__")
                    assert parameters_in_stub(inner) == written, f"{name}.{method}"


# ------------------------------------------------------------------------------------------------ floors

# The compiled rooms, lowest first: each may use those before it. import-linter sees only Python, so this does.
# What else a room may import stands here; upper floors hand in callables and prebuilt bytes.
COMPILED_FLOORS = {
    "_quota": set[str](),
    "_caller": set[str](),
    "_core": set[str](),
    "_calls": {"asyncio", "contextvars"},
    "_entry": set[str](),
    "_spine": set[str](),
    "_stream": set[str](),
    "_exchange": set[str](),
    "_http": {"email.utils"},
    "_frames": set[str](),
}
OF_CYTHON = ("cython", "cpython", "libc")


def imports_in(source: str) -> set[str]:
    found = re.findall(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w., ]+))", source, re.M)
    names = {name.strip() for module, listed in found for name in (module or listed).split(",")}
    return {name for name in names if name.split(".")[0] not in OF_CYTHON}


@in_work_tree
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_compiled_rooms_import_only_downwards(source: Path) -> None:
    assert source.stem in COMPILED_FLOORS, "a new compiled room: give it its floor in COMPILED_FLOORS"
    rooms = list(COMPILED_FLOORS)
    below = {f"mcpfast.{room}" for room in rooms[: rooms.index(source.stem)]}
    text = source.read_text() + source.with_suffix(".pxd").read_text()
    assert imports_in(text) <= below | COMPILED_FLOORS[source.stem]


def test_the_import_reader_reads() -> None:
    text = "cimport cython\nfrom libc.string cimport x\n    import asyncio, msgspec\nfrom mcpfast._core cimport (\n  A,\n)\n"
    assert imports_in(text) == {"asyncio", "msgspec", "mcpfast._core"}


@pytest.mark.parametrize("room", ["_core", "_quota"])
def test_the_core_loads_nothing(room: str) -> None:
    """`_core` and `_quota` alone bring in neither an event loop nor a parser nor logging."""
    loaded = python(f"import sys; import mcpfast.{room}; print(*sys.modules)").split()
    assert not {"asyncio", "msgspec", "logging"} & set(loaded)


# ------------------------------------------------------------------------------------------------ start

NOT_AT_START = {
    "argparse", "cryptography", "docstring_parser", "jsonschema_rs", "pydantic", "orjson", "dataclasses", "uuid",
    "mcpfast.client", "mcpfast.cli", "mcpfast.protocol.types", "mcpfast.server.content", "mcpfast.server.forms",
    "mcpfast.server.sealed",
}  # fmt: skip
SMALL_SERVER = """
from mcpfast import MCPServer

server = MCPServer("small", version="1.0")

@server.tool
async def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
"""


def test_import_mcpfast_is_cheap() -> None:
    """The front door opens no room: names are found when they are asked for."""
    loaded = set(python("import sys; import mcpfast; print(*sys.modules)").split())
    assert not loaded & (NOT_AT_START | {"asyncio", "msgspec", "uvloop", "inspect", "logging"})
    assert {name for name in loaded if name.startswith("mcpfast")} == {"mcpfast"}


def test_a_small_server_loads_what_it_needs() -> None:
    loaded = set(python(SMALL_SERVER + "\nimport sys; print(*sys.modules)").split())
    baseline = set(python("import sys, asyncio, msgspec; print(*sys.modules)").split())
    assert not (loaded - baseline) & NOT_AT_START


# ------------------------------------------------------------------------------------------------ preflight and words


@in_work_tree
def test_preflight_passes_here() -> None:
    ran = subprocess.run([sys.executable, "workshop/preflight.py"], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@in_work_tree
def test_preflight_names_a_missing_compiler() -> None:
    environment = {**os.environ, "CC": "/nowhere/cc"}
    ran = subprocess.run(
        [sys.executable, "workshop/preflight.py"], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "a C compiler" in ran.stderr and "gcc" in ran.stderr


@in_work_tree
def test_preflight_names_missing_programs() -> None:
    command = [sys.executable, "workshop/preflight.py", "no-such-program", sys.executable]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "no-such-program" in ran.stderr and sys.executable not in ran.stderr


@in_work_tree
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"OLDEST": (99, 0)}, "Python 99.0 or newer"),
        ({"has_venv": lambda: False}, "Python's venv module"),
        ({"has_headers": lambda: False}, "Python's C headers"),
    ],
    ids=["old Python", "no venv", "no headers"],
)
def test_preflight_names_what_is_missing(
    broken: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preflight = runpy.run_path(str(ROOT / "workshop" / "preflight.py"))
    main = preflight["main"]
    for name, value in broken.items():
        monkeypatch.setitem(main.__globals__, name, value)
    assert main([]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert told in line


@in_work_tree
def test_a_second_make_builds_nothing() -> None:
    """`make -n` says what it would do: only run pytest. (Where this environment is one that make has made.)"""
    stamps = Path(sys.prefix, "stamps")
    if not (stamps / "package").exists() or Path(sys.prefix).parent not in (ROOT, ROOT / ".venvs"):
        pytest.skip("not an environment of the Makefile")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    made_with = (stamps / "python").read_text().strip()
    command = ["make", "-n", "test", f"VENV={Path(sys.prefix).relative_to(ROOT)}", f"PYTHON={made_with}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert [line for line in ran.stdout.splitlines() if "pytest" not in line] == []
    assert ran.returncode == 0


@in_work_tree
def test_every_word_is_taught() -> None:
    makefile = (ROOT / "Makefile").read_text()
    words = set(next(line for line in makefile.splitlines() if line.startswith(".PHONY: help")).split()[1:])
    taught = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    assert words == taught


@in_work_tree
def test_interpreters_are_started_not_believed(tmp_path: Path) -> None:
    find = runpy.run_path(str(ROOT / "workshop" / "interpreters.py"))["find"]
    here = "{}.{}".format(*sys.version_info[:2])
    found = find(here)
    assert (
        subprocess.check_output(
            [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
        ).strip()
        == here
    )
    shim = tmp_path / "python9.9"
    shim.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    shim.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{path}"
    try:
        assert find("9.9") == ""
    finally:
        os.environ["PATH"] = path


# ------------------------------------------------------------------------------------------------ locks, build, gates


@in_work_tree
@pytest.mark.parametrize("name", ["run", "test", "lint", "fuzz", "profile", "lock"])
def test_locks_pin_everything_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    packages = re.findall(r"^([a-z0-9].*?)(?=^[a-z0-9]|\Z)", text, re.S | re.M)
    assert packages
    for package in packages:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+", package)
        assert "--hash=sha256:" in package


@in_work_tree
def test_locks_agree_with_each_other() -> None:
    """All of them are installed into one environment."""
    versions: dict[str, set[str]] = {}
    for file in (ROOT / "requirements").glob("*.txt"):
        for name, version, marker in re.findall(
            r"^([\w.-]+)==([\w.]+)(?: ; (.*?))? \\$", file.read_text(), re.M
        ):
            versions.setdefault(f"{name} {marker if name in ('numpy', 'atheris') else ''}", set()).add(
                version
            )
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@in_work_tree
def test_an_unknown_flavour_is_refused() -> None:
    environment = {**os.environ, "MCPFAST_BUILD": "fastest"}
    ran = subprocess.run(
        [sys.executable, "setup.py", "--name"], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert ran.returncode != 0
    assert "no such flavour" in ran.stderr


@in_work_tree
def test_setup_stays_short() -> None:
    assert len((ROOT / "setup.py").read_text().splitlines()) <= 100


@in_work_tree
def test_the_coverage_gate_holds_total_and_critical_files() -> None:
    shortfalls = runpy.run_path(str(ROOT / "workshop" / "coverage_gate.py"))["shortfalls"]
    report = {
        "totals": {"percent_covered": 91.0},
        "files": {"mcpfast/a.pyx": {"missing_lines": []}, "mcpfast/b.py": {"missing_lines": [3, 7]}},
    }
    assert shortfalls(report, 90.0, ["mcpfast/a.pyx"]) == []
    assert "91.0" in shortfalls(report, 95.0, [])[0]
    assert "3, 7" in shortfalls(report, 90.0, ["mcpfast/b.py"])[0]
    assert "not measured" in shortfalls(report, 90.0, ["mcpfast/c.py"])[0]


@in_work_tree
def test_the_critical_path_names_files_that_exist() -> None:
    critical = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mcpfast"]["coverage"]["critical"]
    assert critical
    assert [name for name in critical if not (ROOT / name).exists()] == []


@in_work_tree
def test_a_special_build_never_writes_into_the_work_tree(tmp_path: Path) -> None:
    """Compiled rooms in a folder of the package, too: a link to that folder would let them through."""
    sources, package = tmp_path / "mcpfast", tmp_path / "build" / "lib" / "mcpfast"
    for name in ("_core.pyx", "_core.so", "bench/_engine.pyx", "bench/native/plan.h", "server/app.py"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).touch()
    package.mkdir(parents=True)
    (package / "bench").symlink_to(sources / "bench")  # as an older tree.py left it
    link = runpy.run_path(str(ROOT / "workshop" / "tree.py"))["link"]
    for _ in range(2):
        link(sources, package)
    for name in ("_new.so", "bench/_engine.so"):
        (package / name).touch()
        assert not (sources / name).exists()
    assert (package / "bench" / "native" / "plan.h").exists()
    assert (package / "server" / "app.py").exists()
    assert not (package / "_core.so").exists()
