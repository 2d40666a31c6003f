"""Builds the compiled rooms of mcpfast, in one of five flavours:

    MCPFAST_BUILD=release   what users get (the default)
    MCPFAST_BUILD=debug     no optimisation, assertions, for gdb
    MCPFAST_BUILD=trace     every line reports to coverage
    MCPFAST_BUILD=sanitize  AddressSanitizer and UndefinedBehaviorSanitizer
    MCPFAST_BUILD=fuzz      sanitize, and every branch reports to libFuzzer

Each flavour of each Python keeps its objects in build/<flavour>-<python>/, so that none overwrites another's. Release goes
into the work tree with `build_ext --inplace`; the others into build/<flavour>-<python>/lib (workshop/tree.py).
"""

import hashlib
import json
import os
import sys
import sysconfig
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ASAN_UBSAN = "-fsanitize=address,undefined"
SANITIZE = ["-O1", "-g", "-UNDEBUG", ASAN_UBSAN, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
FLAVOURS = {  # compiler arguments, linker arguments, Cython directives
    "release": (["-O3", "-g", "-DNDEBUG", "-fno-semantic-interposition", "-fno-plt"], [], {}),
    "debug": (["-O0", "-g3", "-UNDEBUG"], [], {}),
    "trace": (["-O0", "-DCYTHON_TRACE_NOGIL=1"], [], {"linetrace": True}),
    "sanitize": (SANITIZE, [ASAN_UBSAN], {}),
    "fuzz": ([*SANITIZE, "-fsanitize-coverage=trace-pc,trace-cmp"], [ASAN_UBSAN], {}),
}
flavour = os.environ.get("MCPFAST_BUILD", "release")
if flavour not in FLAVOURS:
    raise SystemExit(f"MCPFAST_BUILD={flavour}: no such flavour; there are {', '.join(FLAVOURS)}")
if flavour != "release" and "--inplace" in sys.argv:
    raise SystemExit(
        f"the {flavour} flavour does not go into the work tree: `python workshop/tree.py {flavour}` builds it"
    )

compile_args, link_args, directives = FLAVOURS[flavour]
tag = f"{flavour}-{sysconfig.get_config_var('SOABI') or sys.implementation.cache_tag}"
headers = sorted(glob("mcpfast/*.h"))
LOAD_ENGINE = "mcpfast/bench/_engine.pyx"  # on Linux only: it is built on epoll
load_sources = sorted(glob("mcpfast/bench/*.c"))
load_headers = sorted(glob("mcpfast/bench/native/*.h"))


def room(source: str) -> Extension:
    """One compiled room; `source` is its .pyx. counters.c carries the counters of the room to libFuzzer."""
    beside = load_sources if source == LOAD_ENGINE else []
    return Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source, *beside, *(["fuzz/counters.c"] if flavour == "fuzz" else [])],
        include_dirs=["mcpfast", os.path.dirname(source)],
        depends=[*headers, *load_headers, "setup.py"],
        extra_compile_args=["-fvisibility=hidden", "-Wall", "-Wno-unused-function", *compile_args],
        extra_link_args=link_args,
    )


def rooms() -> list[str]:
    return sorted(glob("mcpfast/_*.pyx")) + ([LOAD_ENGINE] if sys.platform == "linux" else [])


def freshen() -> None:
    """Touches the sources whose content is not that of the last build. The compilers go by time alone, and that lies
    after a copy; rooms compiled against different .pxd of each other crash."""
    record = Path("build", tag, "sources.json")
    now = {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in glob("mcpfast/_*.p*") + headers + [LOAD_ENGINE, *load_sources, *load_headers]
    }
    built = json.loads(record.read_text()) if record.exists() else {}
    if now != built:
        for path in now.keys() & built.keys():
            if now[path] != built[path]:
                os.utime(path)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(now))


freshen()
setup(
    ext_modules=cythonize(
        [room(source) for source in rooms()],
        build_dir=f"build/{tag}/c",
        compiler_directives={"language_level": 3, **directives},
        include_path=["."],
        annotate=bool(os.environ.get("MCPFAST_ANNOTATE")),  # how yellow is it? build/<tag>/c/mcpfast/*.html
    ),
    options={
        "build": {
            "build_base": f"build/{tag}",
            "build_lib": f"build/{tag}/lib",
            "build_temp": f"build/{tag}/objects",
        },
        "build_ext": {"parallel": os.cpu_count() or 1},
    },
)
