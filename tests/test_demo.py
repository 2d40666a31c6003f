"""`make demo`: it shows everything, and tells what is wrong."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("example_demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MEASURE_S", 0.05)
    return module


def test_it_shows_both_eras_on_each_transport(demo: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    out, err = capfd.readouterr()
    for title in ("stdio", "Unix socket", "TCP", "HTTP", "WebSocket"):
        assert f"\n{title}, 2025-11-25, a session\n" in out
        assert f"\n{title}, 2026-07-28, stateless\n" in out
        assert re.search(rf"^  {title} +[\d,]+ +[\d,]+ +[\d,]+ +[\d,]+ +[\d,]+ +[\d,]+$", out, re.M)
    for method in (
        "initialize",
        "server/discover",
        "tools/list",
        "tools/call order_coffee",
        "prompts/get review",
    ):
        assert f"  {method} " in out
    assert out.count("the same 11 requests, and the same answers") == 8
    assert "1 of 3, 2 of 3, 3 of 3" in out and "How much coffee?" in out and "make bench" in out
    assert "\x1b" not in out  # no terminal, no colours, no bar
    assert "Traceback" not in err


def test_a_wrong_answer_ends_it_with_the_reason(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "echo.py"
    wrong.write_text(Path(demo.ECHO).read_text().replace("return text\n", "return text.upper()\n"))
    monkeypatch.setattr(demo, "ECHO", str(wrong))
    assert demo.main() == 1
    out, err = capfd.readouterr()
    assert "answered 'HELLO', and should have answered 'hello'" in err
    assert "tools/list" in out and "prompts/get" not in out  # how far it came


def test_a_server_that_does_not_start_ends_it_with_the_reason(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "echo.py"
    wrong.write_text("raise RuntimeError('no such luck')\n")
    monkeypatch.setattr(demo, "ECHO", str(wrong))
    assert demo.main() == 1
    assert "no such luck" in capfd.readouterr().err


def test_it_has_colours_and_a_bar_on_a_terminal() -> None:
    """As a program of its own, since what counts is the real stdout."""
    import pty

    code = f"import runpy, sys; m = runpy.run_path({str(DEMO)!r}); p = m['Paper'](); p.bar(0.5, 'half'); p.steps([('a/b', 'c')])"
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs)
        shown = terminal.read(4096)
        while "a/b" not in shown.decode():
            shown += terminal.read(4096)
        assert process.wait(20) == 0
        import os

        os.close(theirs)
    assert "###############...............  half" in shown.decode()
