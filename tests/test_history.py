"""The history of the benches: its lines, the page that draws them, and the pieces beside their last landed run."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import json
import re
import shutil
import subprocess
import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

from benches import history, pieces, report, run, series, table
from benches.budgets import budgets
from benches.charts import LINES_MAX
from benches.figures import Measured, Setting
from benches.history import Entry
from mcpfast import __version__
from mcpfast.bench.report_plot import categories, close_up, labelled
from mcpfast.bench.report_runs import whole_text
from tests.test_bench_report import SHAPES, Page, neighbours, said

EVIL = "\"><script>alert(1)</script>&amp;'<b>"


def entry(commit: str, **changed: Any) -> Entry:
    plain: dict[str, Any] = {
        "commit": commit,
        "date": "2026-11-29T09:00:00+00:00",
        "subject": f"Do {commit}",
        "mcpfast": "0.5.0",
        "python": "3.11.7",
        "machine": {"cpu": "a processor", "processors": 2, "system": "Linux 6.1"},
        "busy": 0.03,
        "figures": {name: budget.aim for name, budget in budgets().items()},
        "verdicts": {},
        "instructions": {"stdio64_legacy": 2755, "waiting": 13_819},
    }
    return Entry(**{**plain, **changed})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history" / "history.jsonl"


# ---- lines -----------------------------------------------------------------------------------------------


def test_there_is_no_history_before_the_first_line(file: Path) -> None:
    assert history.read(file) == []
    assert history.last_landed([]) is None


def test_lines_stand_in_the_order_in_which_changes_landed(file: Path) -> None:
    for commit in ("aaa", "bbb", "ccc"):
        history.add(entry(commit), file)
    assert history.read(file) == [entry("aaa"), entry("bbb"), entry("ccc")]
    assert [json.loads(line)["commit"] for line in file.read_text().splitlines()] == ["aaa", "bbb", "ccc"]


def test_a_commit_that_is_measured_again_keeps_one_line_in_its_place(file: Path) -> None:
    for commit in ("aaa", "bbb", "aaa+"):
        history.add(entry(commit), file)
    history.add(entry("aaa", busy=0.5), file)
    assert [(one.commit, one.busy) for one in history.read(file)] == [
        *(("aaa", 0.5), ("bbb", 0.03), ("aaa+", 0.03)),
    ]


def test_the_last_landed_line_is_of_a_commit() -> None:
    lines = [entry("aaa"), entry("bbb"), entry("bbb+")]
    assert history.last_landed(lines) == lines[1]
    assert history.last_landed(lines[2:]) is None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda line: line[:-5], "line 2: Input data was truncated"),
        (lambda line: "<<<<<<< HEAD", "line 2: JSON is malformed"),
        (lambda line: "", "line 2: "),
        (lambda line: line.replace('"busy"', '"lazy"'), "line 2: .*lazy"),
        (lambda line: re.sub('"busy":[0-9.]+', '"busy":"much"', line), r"line 2: .*`\$.busy`"),
        (lambda line: line.replace("bbb", "aaa"), "line 2: aaa has a line above"),
    ],
)
def test_a_bad_line_is_named(file: Path, spoil: Any, why: str) -> None:
    for commit in ("aaa", "bbb", "ccc"):
        history.add(entry(commit), file)
    lines = file.read_text().splitlines()
    lines[1] = spoil(lines[1])
    file.write_text("\n".join(lines))
    with pytest.raises(history.Unreadable, match=f"{re.escape(str(file))}, {why}"):
        history.read(file)
    before = file.read_text()
    with pytest.raises(history.Unreadable):
        history.add(entry("ddd"), file)
    assert file.read_text() == before


def test_the_committed_history_can_be_read() -> None:
    assert all(isinstance(one, Entry) for one in history.read(history.FILE))


# ---- make bench ARGS=--record ----------------------------------------------------------------------------


def failing(_: Setting) -> Measured:
    raise run.RunFailed("the server ended")


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    """The real bench, of four figures that take no time."""
    names = ("rss", "spawn", "vs_mcp", "http_p99")
    values = {"rss": 27.123456, "spawn": 9.0, "vs_mcp": 500.0}
    figures: dict[str, Any] = {
        name: lambda _, value=value: Measured(value=value) for name, value in values.items()
    }
    known = {name: budgets()[name] for name in names}
    monkeypatch.setattr(run, "FIGURES", {**figures, "http_p99": failing})
    monkeypatch.setattr(run, "budgets", lambda: known)
    monkeypatch.setattr(run, "try_out", lambda setting: None)
    monkeypatch.setattr(run, "busy_share", lambda: 0.0)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(history, "FILE", file)
    for module in (run, history, table):
        monkeypatch.setattr(module, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(history, "subject", lambda of: f"What {of} does")


@pytest.mark.usefixtures("small_bench")
def test_a_full_run_is_recorded(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == 1
    assert not file.exists()
    monkeypatch.setattr(sys, "argv", ["run.py", "--record"])
    assert run.main() == 1
    run.main()
    (line,) = history.read(file)
    assert (line.commit, line.subject, line.mcpfast) == (
        *("0123456789ab", "What 0123456789ab does", __version__),
    )
    assert line.figures == {"rss": 27.123, "spawn": 9.0, "vs_mcp": 500.0}
    assert line.verdicts == {"spawn": "MISSED", "http_p99": "FAILED"}
    assert line.python == sys.version.split()[0]
    assert set(line.machine) == {"cpu", "processors", "system"}
    if sys.version_info[:2] == (3, 11):
        assert line.instructions["stdio64_legacy"] > 1_000
    assert "the line of 0123456789ab" in capsys.readouterr().out


@pytest.mark.usefixtures("small_bench")
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--only", "rss"], "leave out --only"),
        (["--quick"], "leave out --quick"),
        (["--server", "python mine.py"], "leave out --server"),
        (["--quick", "--only", "rss"], "leave out --only and --quick"),
    ],
)
def test_a_part_of_a_run_is_no_history(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--record", *more])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 2
    assert f"--record keeps whole runs of a commit: {why}\n" in capsys.readouterr().err


@pytest.mark.usefixtures("small_bench")
def test_a_bad_line_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir()
    file.write_text("{}\n")
    monkeypatch.setattr(run, "measure", lambda budget, setting: pytest.fail("measured"))
    monkeypatch.setattr(sys, "argv", ["run.py", "--record"])
    with pytest.raises(SystemExit):
        run.main()
    assert f"{file}, line 1: " in capsys.readouterr().err


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    return subprocess.run(
        ["git", "-C", folder, *named, *words], capture_output=True, text=True, check=True
    ).stdout


def test_the_history_itself_makes_no_tree_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "benches" / "history").mkdir(parents=True)
    kept, code = tmp_path / "benches" / "history" / "history.jsonl", tmp_path / "code.py"
    kept.write_text("")
    code.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "First <b>")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD").strip()
    monkeypatch.setattr(table, "RESULTS", tmp_path / "benches" / "results")
    monkeypatch.setattr(history, "FILE", kept)
    kept.write_text("a line\n")
    assert table.commit.__wrapped__() == head
    code.write_text("other")
    assert table.commit.__wrapped__() == f"{head}+"
    assert history.subject(f"{head}+") == "First <b>"


# ---- make bench-report -----------------------------------------------------------------------------------


def page(tmp_path: Path, *entries: Entry) -> Page:
    out = tmp_path / "page.html"
    report.write_history(entries, out)
    return Page(out)


def row_of(seen: Page, name: str) -> list[str]:
    """The figure's cells in the table of the last change."""
    last = seen.text[seen.text.index("What the last change did") :]
    shown = re.escape(name.replace("_", "_<wbr>"))
    found = re.search(f'<tr><th scope="row"><span[^>]*></span>{shown}</th>(.*?)</tr>', last)
    assert found is not None
    return re.findall("<td[^>]*>(.*?)</td>", found[1])


@pytest.mark.parametrize("count", [1, 2, 3, LINES_MAX + 5])
def test_every_figure_is_drawn_and_told(tmp_path: Path, count: int) -> None:
    seen = page(tmp_path, *(entry(f"{at:012x}") for at in range(count)))
    keys = [name.partition(":")[0] for name in seen.names("li")]
    for name, budget in budgets().items():
        assert name in keys
        assert row_of(seen, name)[-1] == "aim"
        assert escape(budget.says.rpartition(": ")[2]) in seen.text
    charts = seen.text.count('class="chart"')
    eras = sum(name.endswith("_2026_" + name.partition("_2026_")[2]) for name in budgets())
    assert charts == len(seen.plots) == len(budgets()) - eras + 2  # and two cases of the gate
    assert f"bar {budgets()['rss'].bar:g}" in said(seen) and "aim 26" in said(seen)
    assert (f"The newest {LINES_MAX} of {count}" in said(seen)) is (count > LINES_MAX)


def test_what_is_pointed_at_tells_of_the_change(tmp_path: Path) -> None:
    seen = page(tmp_path, entry("aaaaaaaaaaaa", subject="Answer at once"), entry("bbbbbbbbbbbb+"))
    titles = re.findall("<title>([^<]*)</title></rect>", seen.text)
    assert "aaaaaaa Answer at once\n2026-11-29\nrss: 26 MB, aim" in titles
    assert [one for one in titles if one.startswith("bbbbbbb+ ")]
    assert 'class="dot c0 hollow"' in seen.text


def test_the_page_loads_nothing_and_believes_no_name(tmp_path: Path) -> None:
    odd = {"figures": {EVIL: 3.0, "rss": 27.0}, "verdicts": {"spawn": EVIL}, "instructions": {EVIL: 9}}
    poisoned = entry(EVIL, subject=EVIL, mcpfast=EVIL, python=EVIL, machine={"cpu": EVIL}, date=EVIL, **odd)
    seen = page(tmp_path, entry("aaa", **odd), poisoned)
    assert EVIL in said(seen)
    assert "<script" not in seen.text and "<b>alert" not in seen.text
    tags = {tag for tag, _ in seen.elements}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "image", "use", "a"})
    for _, attributes in seen.elements:
        assert attributes.keys().isdisjoint({"src", "href", "xlink:href", "srcset", "style", "onclick"})
    assert "http://" not in seen.text and "https://" not in seen.text
    assert "url(" not in seen.text and "@import" not in seen.text and "default-src 'none'" in seen.text
    assert "prefers-color-scheme: dark" in seen.text and "max-width: 760px" in seen.text


def test_one_line_has_nothing_before_it(tmp_path: Path) -> None:
    seen = page(tmp_path, entry("aaa"))
    assert "There is no landed change before it to compare with." in said(seen)
    assert row_of(seen, "rss") == ["–", "26 MB", "–", "32 MB", "26 MB", "aim"]


def test_the_last_change_is_held_against_the_landed_one_before_it(tmp_path: Path) -> None:
    def with_figures(commit: str, **figures: float) -> Entry:
        return entry(commit, figures={**entry(commit).figures, **figures})

    seen = page(
        tmp_path,
        with_figures("aaa", rss=20.0, spawn=1.0, vs_mcp=400.0),
        with_figures("bbb+", rss=90.0),
        with_figures("ccc", rss=20.5, spawn=1.2, vs_mcp=600.0),
    )
    assert row_of(seen, "rss")[:3] == ["20 MB", "20.5 MB", "+2.5 %"]
    assert "Better: vs_mcp (+50.0 %). Worse: spawn (+20.0 %)." in said(seen)
    assert '<td class="good">+50.0 %' in seen.text and '<td class="bad">+20.0 %' in seen.text


def test_instructions_count_from_three_percent(tmp_path: Path) -> None:
    counts = {"waiting": 10_000, "inline": 2_000}
    risen = {"waiting": 10_301, "inline": 2_059}
    seen = page(tmp_path, entry("aaa", instructions=counts), entry("bbb", instructions=risen))
    assert "Worse: gate: waiting (+3.0 %)." in said(seen)


def test_figures_come_and_go(tmp_path: Path) -> None:
    first, last = entry("aaa"), entry("bbb")
    early = {**first.figures, "forgotten": 7.0}
    late = {name: value for name, value in last.figures.items() if name not in ("spawn", "http_p99")}
    del early["rss"]
    verdicts = {"http_p99": "FAILED", "spawn": "skipped: no reason"}
    seen = page(
        tmp_path,
        msgspec.structs.replace(first, figures=early),
        msgspec.structs.replace(last, figures=late, verdicts=verdicts),
    )
    assert row_of(seen, "rss")[:3] == ["–", "26 MB", "–"]
    assert row_of(seen, "spawn")[:3] == ["1.30x", "–", "–"]
    assert row_of(seen, "spawn")[-1] == "skipped: no reason"
    assert row_of(seen, "http_p99")[-1] == "FAILED"
    assert row_of(seen, "forgotten") == ["7.00", "–", "–", "", "", ""]
    assert "No longer measured" in seen.names("h2")
    assert "spawn: not in the last change" in said(seen)
    assert "spawn: skipped: no reason" in seen.text


def test_what_was_never_measured_is_named_and_not_drawn(tmp_path: Path) -> None:
    seen = page(tmp_path, entry("aaa", figures={"rss": 27.0}, instructions={}))
    assert len(seen.plots) == 1
    assert "In no line yet: stdio64_legacy, " in said(seen)
    assert page(tmp_path, entry("aaa", figures={}, instructions={})).plots == []


def test_a_figure_that_missed_its_bar_is_red(tmp_path: Path) -> None:
    figures = {**entry("aaa").figures, "rss": 33.0}
    seen = page(tmp_path, entry("aaa", figures=figures, verdicts={"rss": "MISSED"}), entry("bbb"))
    assert len(re.findall('class="dot bad"', seen.text)) == 1
    assert "rss: 33 MB, MISSED" in said(seen)


def test_lines_of_different_machines_are_not_compared_in_silence(tmp_path: Path) -> None:
    assert "different machines" in said(page(tmp_path, entry("aaa"), entry("bbb", python="3.13.1")))
    assert "different machines" not in said(page(tmp_path, entry("aaa"), entry("bbb")))


def test_labels_do_not_touch_and_every_number_is_one(tmp_path: Path) -> None:
    seen = page(tmp_path, *(entry(f"{at:012x}") for at in range(30)))
    assert all(next_at - at >= size for at, next_at, size in neighbours(seen))
    numbers = [one.get(key) or "" for tag, one in seen.elements if tag in SHAPES for key in ("d", "cx", "cy")]
    assert not [number for number in numbers if "nan" in number or "inf" in number]


def test_every_figure_has_a_section() -> None:
    groups = series.groups_of(series.series_of([entry("aaa")]))
    assert sum(map(len, groups.values())) == len(budgets()) + 2
    assert {one.unit for one in groups["Memory"]} == {"MB", "KB"}
    assert {"stdio_2025_one_p50", "stdio_2026_one_p50"} <= {one.name for one in groups["Latency: stdio"]}
    assert "tools_10000" in {one.name for one in groups["Costs"]}


def report_of(file: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benches" / "report.py", "--history", file, "--out", out]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_says_where_the_page_is(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "build" / "page.html"
    empty = report_of(file, out)
    assert (empty.returncode, out.exists()) == (1, False)
    assert empty.stderr == f"{file} has no line yet: `make bench ARGS=--record` adds one.\n"
    history.add(entry("aaa"), file)
    assert report_of(file, out).stdout == f"{out}\n"
    assert "Instructions a call" in Page(out).names("h2")
    file.write_text("{\n")
    assert f"{file}, line 1: " in report_of(file, out).stderr


# ---- axes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_things_in_a_row_have_their_places_and_the_last_its_name(count: int) -> None:
    axis = categories([f"c{at}" for at in range(count)], "change")
    assert [axis.place(at + 0.5) for at in range(count)] == [tick.place for tick in axis.ticks]
    for length in (30.0, 120.0, 500.0):
        shown = labelled(axis.ticks, length, lambda _: 40.0)
        assert shown[-1].label == f"c{count - 1}"
        assert len({round(b.place - a.place, 9) for a, b in pairwise(shown)}) <= 1


@pytest.mark.parametrize("values", [[2755.0], [2755.0, 2841.0], [0.0], [1.0, 90_000.0]])
def test_a_close_up_holds_its_values_and_shows_small_changes(values: list[float]) -> None:
    axis = close_up(values, "instructions", whole_text, share=0.03)
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 2 <= len(axis.ticks) <= 9
    if len(values) == 1 and values[0]:
        assert axis.place(1.03 * values[0]) - axis.place(values[0]) > 0.2


# ---- make bench-pieces -----------------------------------------------------------------------------------


def test_every_piece_works() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", str(pieces.PIECES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_pieces_are_shown_beside_their_last_landed_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.json"
    monkeypatch.setattr(pieces, "STORAGE", tmp_path / "pieces")
    monkeypatch.setattr(sys, "argv", ["pieces.py", "-k", "scalar or name", "--benchmark-max-time=0.02"])
    start = pieces.run
    monkeypatch.setattr(pieces, "run", lambda into, *more: start(into, *more) or not shutil.copy(into, kept))
    assert pieces.main() == 0
    assert f"No run has landed for {pieces.kind_of_machine()} yet" in capfd.readouterr().out

    pieces.record(kept, pieces.landed_file())
    assert pieces.landed_file().stat().st_size < 2_500
    measured = json.loads(kept.read_text())
    measured["benchmarks"] = [one for one in measured["benchmarks"] if "scalar" in one["name"]]
    monkeypatch.setattr(pieces, "run", lambda into, *_: not into.write_text(json.dumps(measured)))
    assert pieces.main() == 0
    shown = capfd.readouterr().out
    assert re.search("last Min +now Min +ΔMin +last Median +now Median +ΔMedian", shown)
    assert re.search(r"\nread_scalar_arguments +[\d.]+ +[\d.]+ +[+-][\d.]+% ", shown)
    assert "dispatch_by_name" not in shown
    assert "another machine" not in shown


def test_some_pieces_are_no_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pieces.py", "--record", "-k", "scalar"])
    with pytest.raises(SystemExit) as ended:
        pieces.main()
    assert ended.value.code == 2
    assert "--record keeps whole runs: leave out -k scalar" in capsys.readouterr().err


def test_a_run_of_another_machine_is_told(tmp_path: Path) -> None:
    landed = tmp_path / "last.json"
    told = {"commit": "abc", "datetime": "2026-11-29T09:00:00", "machine_info": {"cpu": "slow"}}
    landed.write_text(json.dumps(told))
    assert pieces.about(landed).startswith(
        "`last` is abc of 2026-11-29, on another machine or Python: {'cpu'"
    )
