"""Compiles ceiling.c into benches/_build when it is newer than what is there."""

import shlex
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from shutil import which

HERE = Path(__file__).resolve().parent
FLAGS = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra"]


def compiler() -> list[str]:
    """The command of a C compiler: `cc`, or the one that Python itself was built with."""
    for command in (["cc"], shlex.split(sysconfig.get_config_var("CC") or ""), ["gcc"], ["clang"]):
        if command and which(command[0]):
            return command
    sys.exit("the benches need a C compiler. Install: apt-get install -y gcc libc6-dev")


@cache
def binary(name: str) -> Path:
    """The path of the compiled program `name`, compiled first where needed."""
    target = HERE / "_build" / name
    sources = [HERE / f"{name}.c", *(HERE / "native").glob("*.h"), Path(__file__)]
    if target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return target
    target.parent.mkdir(exist_ok=True)
    fresh = target.with_name(f"{name}.new")  # two benches at once never see half a program
    subprocess.run([*compiler(), *FLAGS, str(HERE / f"{name}.c"), "-o", str(fresh), "-lm"], check=True)
    fresh.replace(target)
    return target


if __name__ == "__main__":
    print(binary("ceiling"))
