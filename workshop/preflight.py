"""Tells in one line what this machine lacks, with the command that installs it, and exits with code 2.

    python3 workshop/preflight.py             what every word needs: Python >= 3.11, venv, a C compiler, Python's headers
    python3 workshop/preflight.py valgrind    programs that one word needs

Runs before anything of ours is installed, so: the standard library only, and syntax that even an old Python can read.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

OLDEST = (3, 11)
PACKAGES = {
    "callgrind_annotate": "valgrind",
    "node": "nodejs",
}  # programs whose Debian package has another name


def main(programs: "list[str]") -> int:
    if sys.version_info < OLDEST:
        return tell(
            "Python %d.%d or newer (%s is %d.%d)"
            % (OLDEST[0], OLDEST[1], sys.executable, sys.version_info[0], sys.version_info[1]),
            ["python3", "python3-venv", "python3-dev"],
            "; another one: make PYTHON=/path/to/python3.11 ...",
        )
    missing, packages = [], []
    if programs:
        missing = [program for program in programs if shutil.which(program) is None]
        packages = [PACKAGES.get(program, program) for program in missing]
    else:
        if not has_venv():
            missing.append("Python's venv module")
            packages.append(debian_python("venv"))
        if not compiles():
            missing.append("a C compiler")
            packages += ["gcc", "libc6-dev"]
        if not has_headers():
            missing.append("Python's C headers")
            packages.append(debian_python("dev"))
    if not missing:
        return 0
    return tell(" and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]])), packages)


def has_venv() -> bool:
    try:
        import ensurepip
        import venv  # noqa: F401
    except ImportError:
        return False
    return bool(ensurepip.version())


def has_headers() -> bool:
    return os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))


def compiles() -> bool:
    """Whether the compiler that will build the core makes a program; it may be there without its own headers."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    folder = tempfile.mkdtemp(prefix="mcpfast-preflight-")
    try:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as out:
            out.write("#include <stdlib.h>\nint main(void) { return 0; }\n")
        command = compiler + [source, "-o", os.path.join(folder, "probe")]
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def debian_python(part: str) -> str:
    """python3-venv where python3 is Debian's own, else python3.12-venv and the like."""
    own = os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")
    version = "3" if own else "3.%d" % sys.version_info[1]
    return "python%s-%s" % (version, part)


def tell(missing: str, packages: "list[str]", more: str = "") -> int:
    if shutil.which("apt-get"):
        sudo = "sudo " if os.geteuid() != 0 and shutil.which("sudo") else ""
        remedy = "%sapt-get install -y %s" % (sudo, " ".join(packages))
    else:
        remedy = "install what Debian calls: " + ", ".join(packages)
    sys.stderr.write("mcpfast needs %s. Install: %s%s\n" % (missing, remedy, more))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
