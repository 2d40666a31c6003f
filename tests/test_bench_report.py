"""The report of `mcpfast bench --html`: one file that loads nothing, tells of every run, and believes no name in it."""

import copy
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mcpfast.bench.report import write_report
from mcpfast.bench.report_plot import Tick, labelled, linear, logarithmic, tail_axis
from mcpfast.bench.report_runs import count_tick, rate_text, ratio_text, time_text, time_tick

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}
SHAPES = {"path", "rect", "circle"}  # void in practice: SVG closes them with "/>"

TIMES = {"mean": 90.0, "p50": 80.0, "p90": 120.0, "p99": 400.0, "p999": 800.0, "max": 12_300.0}
RESULT: dict[str, Any] = {
    "mcpfast": "0.5.0",
    "date": "2026-11-23T09:00:00+00:00",
    "name": "echo",
    "target": "http://127.0.0.1:8000/mcp",
    "era": "2026-07-28",
    "loop": "closed",
    "connections": 32,
    "window": 1,
    "rate": None,
    "warmup_s": 1.0,
    "duration_s": 10.0,
    "machine": {"cpu": "a processor", "processors": 2, "system": "Linux 6.1", "python": "3.11.7"},
    "seconds": 10.0,
    "requests": 123_456,
    "rate_per_s": 12_345.6,
    "rate_p75_per_s": 13_000.0,
    "errors": 0,
    "error_kinds": {},
    "refused": 0,
    "latency_us": TIMES,
    "refused_latency_us": {},
    "percentiles": [[0.0, 40.1], [0.5, 80.0], [0.9, 120.0], [0.99, 400.0], [0.999, 800.0], [0.99999, 900.0]],
    "over_time": [
        {"at_s": at / 10, "rate_per_s": 12_000.0 + at, "errors": 0, "p50": 80.0, "p99": 400.0, "max": 900.0}
        for at in range(1, 101)
    ],
    "kinds": [{"name": "call echo", "requests": 123_456, "errors": 0, "latency_us": TIMES}],
    "handshake_ms": 2.0,
    "server": {"pid": 7, "cpu_us_per_request": 2.79, "rss_mb": 29.9, "descriptors": 17, "threads": 1},
    "generator": {"cpu_us_per_request": 1.0, "busy": 0.41},
    "warnings": [],
}


def result(**changed: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RESULT), **changed}


def sweep(name: str, *rates: float) -> dict[str, Any]:
    runs = [
        result(
            name=name, loop="open", rate=rate, rate_per_s=rate, latency_us={**TIMES, "p99": 400.0 + rate / 10}
        )
        for rate in rates
    ]
    return {**runs[-1], "sweep": runs}


class Page(HTMLParser):
    """What a browser would make of it. Raises where an element is closed that is not open."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = file.read_text()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.plots: list[list[str]] = []  # the letters of each
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "svg":
            self.plots.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "svg" in self.open:
            self.plots[-1].append(data)

    def names(self, tag: str) -> list[str]:
        return re.findall(f"<{tag}[^>]*>(?:<span[^>]*></span>)?([^<]*)</{tag}>", self.text)


def page(tmp_path: Path, *results: dict[str, Any], **more: Any) -> Page:
    file = tmp_path / "report.html"
    write_report(results, file, **more)
    return Page(file)


def said(of: Page) -> str:
    return " ".join(of.words)


# ---- the file --------------------------------------------------------------------------------------------


def test_one_run(tmp_path: Path) -> None:
    seen = page(tmp_path, result())
    words = said(seen)
    for figure in (
        "12.3k/s",
        "80.0 µs",
        "120 µs",
        "400 µs",
        "800 µs",
        "12.3 ms",
        "2.79 µs",
        "29.9 MB",
        "a processor",
    ):
        assert figure in words
    assert seen.names("h2") == [
        "Summary",
        "Latency by percentile",
        "Latency and rate over time",
        "Settings and machine",
    ]


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    seen = page(tmp_path, sweep("a", 1000, 2000), result(name="b"), result(name="c"))
    tags = {tag for tag, _ in seen.elements}
    assert tags.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "image", "use", "foreignobject", "a"}
    )
    for _, attributes in seen.elements:
        assert attributes.keys().isdisjoint({"src", "href", "xlink:href", "srcset", "action", "data"})
        assert not [name for name in attributes if name.startswith("on")]
    sheet = re.search("<style>(.*?)</style>", seen.text, re.S)
    assert sheet is not None and "url(" not in sheet[1] and "@import" not in sheet[1]
    assert "default-src 'none'" in seen.text


def test_both_colour_schemes_a_phone_and_paper_are_thought_of(tmp_path: Path) -> None:
    text = page(tmp_path, result()).text
    for rule in ("prefers-color-scheme: dark", "max-width: 760px", "@media print", "width=device-width"):
        assert rule in text


def test_what_comes_from_a_result_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "\"><script>alert(1)</script>&amp;'<b>"

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poisoned(one, name) for name, one in value.items()} | ({} if key else {evil: evil})
        if isinstance(value, list):
            return [poisoned(one) if isinstance(one, dict | str) else one for one in value]
        return evil if isinstance(value, str) else value

    mean = result(errors=3, error_kinds={evil: 3}, warnings=[evil], first_error=evil)
    mean["kinds"] = [mean["kinds"][0], {**mean["kinds"][0], "name": evil}]
    swept = sweep(evil, 1000, 2000)
    seen = page(
        tmp_path, poisoned(mean), poisoned(result(machine={"cpu": evil})), poisoned(swept), title=evil
    )
    assert "<script" not in seen.text and "<b>alert" not in seen.text
    assert evil in said(seen)
    assert {name for _, attributes in seen.elements for name in attributes} <= ATTRIBUTES


ATTRIBUTES = {
    *("charset", "name", "content", "http-equiv", "lang", "class", "scope", "viewbox", "role", "aria-label"),
    *("d", "x", "y", "cx", "cy", "r", "rx", "width", "height"),
}


# ---- what stands in it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 10, 23])
def test_every_run_is_in_the_table_in_the_legend_and_in_the_plots(tmp_path: Path, count: int) -> None:
    names = [f"server {at}" for at in range(count)]
    seen = page(tmp_path, *(result(name=name, rate_per_s=1000.0 * (at + 1)) for at, name in enumerate(names)))
    assert [name for name in seen.names("th") if name in names][:count] == names  # the summary
    assert [name for name in seen.names("li") if name in names] == names  # the percentiles' legend
    assert [name for name in seen.names("h3") if name in names] == names  # over time
    rate = next(plot for plot in seen.plots if "answered, requests/s" in plot)
    assert [words for words in rate if words in names] == names


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert {"echo (1)", "echo (2)"} <= set(page(tmp_path, result(), result()).names("th"))


def test_a_sweep_is_all_its_runs_by_rate(tmp_path: Path) -> None:
    seen = page(tmp_path, sweep("echo", 4000, 1000, 2500))
    labels = ["echo at 1k/s", "echo at 2.5k/s", "echo at 4k/s"]
    assert [name for name in seen.names("h3") if name.startswith("echo")] == labels
    assert "Latency at each rate" in seen.names("h2")
    assert "echo kept pace up to 4k/s, with a p99 of 800 µs there: the end was not reached." in said(seen)


def test_runs_of_one_name_at_several_rates_make_a_curve(tmp_path: Path) -> None:
    asked = [
        result(rate=rate, rate_per_s=min(rate, 2100.0), loop="open") for rate in (3000.0, 1000.0, 2000.0)
    ]
    seen = page(tmp_path, *asked)
    assert "echo kept pace up to 2k/s" in said(seen) and "of 3k/s asked, 2.10k/s were answered" in said(seen)
    assert (
        len([1 for tag, one in seen.elements if tag == "circle" and "hollow" in (one["class"] or "")]) == 4
    )  # twice drawn


def test_errors_and_warnings_stand_above_all_figures(tmp_path: Path) -> None:
    slices = copy.deepcopy(RESULT["over_time"])
    slices[4]["errors"] = 12
    wrong = result(errors=12, error_kinds={"wrong_answer": 12}, first_error="no such text", over_time=slices)
    seen = page(tmp_path, {**wrong, "warnings": ["the load generator was busy 93% of the time"]})
    words = said(seen)
    first = words.index("Summary")
    assert (
        words.index("12 of 123,456 requests failed") < first and words.index("busy 93% of the time") < first
    )
    assert "wrong_answer" in words and "no such text" in words
    assert [1 for _, one in seen.elements if one.get("class") == "stem"]


def test_a_warning_of_many_runs_is_told_once(tmp_path: Path) -> None:
    seen = page(tmp_path, *(result(name=f"r{at}", warnings=[f"sent {at}.5 ms late"]) for at in range(5)))
    assert len(re.findall("ms late", said(seen))) == 1
    assert "for r1, r2, r3, r4.)" in said(seen)


def test_runs_of_different_machines_are_not_compared_in_silence(tmp_path: Path) -> None:
    other = {**RESULT["machine"], "cpu": "a faster one"}
    assert "different machines" in said(page(tmp_path, result(), result(machine=other)))
    assert "different machines" not in said(page(tmp_path, result(), result()))


def test_kinds_have_a_row_each_where_there_are_several(tmp_path: Path) -> None:
    kinds = [{**RESULT["kinds"][0], "name": name} for name in ("call echo", "tools/list")]
    assert "tools/list" in said(page(tmp_path, result(kinds=kinds)))
    assert "Kinds of requests" not in said(page(tmp_path, result()))


def test_refused_calls_have_a_column_where_there_are_some(tmp_path: Path) -> None:
    refused = result(refused=4321, refused_latency_us={"p99": 55.0})
    assert "4,321, p99 55.0 µs" in said(page(tmp_path, refused))
    assert "refused" not in page(tmp_path, result()).names("th")


# ---- odd runs --------------------------------------------------------------------------------------------

ODD = {
    "no request": result(requests=0, rate_per_s=0.0, percentiles=[], over_time=[], latency_us=dict.fromkeys(TIMES, 0.0)),
    "one request": result(requests=1, percentiles=[[0.0, 40.0]], over_time=RESULT["over_time"][:1]),
    "one point": result(percentiles=[[0.5, 80.0]], over_time=RESULT["over_time"][:1]),
    "all alike": result(percentiles=[[share, 80.0] for share in (0.0, 0.5, 0.9, 0.99)], latency_us=dict.fromkeys(TIMES, 80.0)),
    "nothing over time": result(over_time=[]),
    "silence": result(over_time=[{"at_s": at / 10, "rate_per_s": 0.0} for at in range(1, 9)]),
    "no server": result(server=None),
    "hardly anything": {"name": "echo", "requests": 5, "latency_us": {"p50": 3.0}},
    "nothing": {},
    "nulls": dict.fromkeys(RESULT),
    "not numbers": result(rate_per_s=float("nan"), requests=float("inf"), latency_us={"p50": "fast", "max": float("nan")}),
    "very slow": result(latency_us={**TIMES, "max": 7.2e9}, over_time=[{**RESULT["over_time"][0], "max": 7.2e9}]),
    "very fast": result(rate_per_s=9.9e9, latency_us=dict.fromkeys(TIMES, 0.002), percentiles=[[0.0, 0.001], [0.9, 0.002]]),
    "sweep of one": sweep("echo", 1000),
    "sweep without answers": sweep("echo", 1000, 2000) | {"sweep": [result(rate=9.0, requests=0, rate_per_s=0)] * 3},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_are_drawn_alone_and_beside_others(tmp_path: Path, name: str) -> None:
    for results in ([ODD[name]], [ODD[name], result(name="other")], [result(name="other"), ODD[name]]):
        seen = page(tmp_path, *results)
        assert "Summary" in seen.names("h2")
        numbers = [
            one.get(key) or ""
            for tag, one in seen.elements
            if tag in SHAPES
            for key in ("d", "cx", "cy", "width")
        ]
        assert not [number for number in numbers if "nan" in number or "inf" in number]


def test_no_run_at_all(tmp_path: Path) -> None:
    assert "There is no run to show." in said(page(tmp_path))


def test_all_odd_runs_together(tmp_path: Path) -> None:
    page(tmp_path, *ODD.values())


def test_a_result_read_back_from_json_is_the_same(tmp_path: Path) -> None:
    before = page(tmp_path, sweep("a", 1000, 2000), result()).text
    assert page(tmp_path, *json.loads(json.dumps([sweep("a", 1000, 2000), result()]))).text == before


def test_a_long_run_is_drawn_in_as_many_slices_as_a_screen_shows(tmp_path: Path) -> None:
    slices = [{**RESULT["over_time"][0], "at_s": float(at), "max": 900.0} for at in range(1, 5001)]
    slices[3000]["max"] = 55_000.0
    seen = page(tmp_path, result(over_time=slices))
    assert len(seen.text) < 200_000
    assert "slowest 55.0 ms" in said(seen)  # and the worst of them is not averaged away


def test_percentiles_beyond_the_last_request_are_not_drawn(tmp_path: Path) -> None:
    few = result(requests=100, percentiles=[[0.0, 40.0], [0.9, 50.0], [0.999, 60.0], [0.999999, 60.0]])
    plot = next(plot for plot in page(tmp_path, few).plots if "percentile" in plot)
    assert "99 %" in plot and "99.9 %" not in plot


# ---- axes and numbers ------------------------------------------------------------------------------------


def test_each_plot_has_both_axes_named_and_several_labels_that_do_not_touch(tmp_path: Path) -> None:
    seen = page(tmp_path, sweep("a", 1000, 2000, 90_000), result(name="b"), result(name="c"))
    labels = ("latency", "answered, requests/s", "rate, requests/s", "time, s", "percentile")
    assert len(seen.plots) == 3 + 2 * (
        1 + 2 + 2 * 5
    )  # bars; twice: rates, two percentiles, two plots for each of five runs
    for plot in seen.plots:
        bars = [words for words in plot if words in ("p50 latency", "p99 latency", "answered, requests/s")]
        named = [words for words in plot if words.removesuffix(" (logarithmic)") in labels]
        assert len(named) == 2 or bars
        assert len(plot) >= 7
    for at, next_at, size in neighbours(seen):
        assert next_at - at >= size


def neighbours(seen: Page) -> list[tuple[float, float, float]]:
    """Places of labels beside each other below a plot, and the least distance of the two."""
    found = []
    for plot in re.findall("<svg.*?</svg>", seen.text, re.S):
        ticks = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="tick middle">([^<]*)<', plot)
        for (x, _, one), (next_x, _, other) in pairwise(ticks):
            found.append((float(x), float(next_x), (len(one) + len(other)) / 2 * 7))
    assert found
    return found


@pytest.mark.parametrize(
    "values", [[], [0.0], [3.0], [0.001, 7e9], [120.0, 480.0], [1.0, 1.0], [999.0, 1001.0]]
)
def test_a_logarithmic_axis_holds_its_values_and_has_labels(values: list[float]) -> None:
    axis = logarithmic(values, "latency", time_tick)
    assert all(0 <= axis.place(value) <= 1 for value in values if value > 0)
    assert len(labelled(axis.ticks, 300, lambda _: 17)) >= 2
    assert [tick for tick in axis.ticks if not 0 <= tick.place <= 1] == []


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [0.001], [7e9, 1.0], [96_443.9]])
@pytest.mark.parametrize("exact", [True, False])
def test_a_linear_axis_begins_at_0_and_holds_its_values(values: list[float], exact: bool) -> None:
    axis = linear(values, "rate", count_tick, exact=exact)
    assert axis.ticks[0] == Tick(0.0, "0", 0)
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert len(axis.ticks) >= 4


def test_a_tail_axis_has_a_step_for_each_tenth_that_is_left() -> None:
    axis = tail_axis([0.5, 0.99999], "percentile")
    assert [tick.label for tick in axis.ticks] == [
        "0 %",
        "50 %",
        "90 %",
        "99 %",
        "99.9 %",
        "99.99 %",
        "99.999 %",
    ]
    assert axis.place(0.9) == pytest.approx(0.2) and axis.place(0.99999) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("us", "text", "tick"),
    [
        (0.0, "0 µs", "0"),
        (0.052, "0.0520 µs", "0.052 µs"),
        (4.368, "4.37 µs", "4.37 µs"),
        (850.0, "850 µs", "850 µs"),
        (999.4, "999 µs", "999 µs"),
        (999.6, "1.00 ms", "1 ms"),
        (12_345.0, "12.3 ms", "12.3 ms"),
        (1_500_000.0, "1.50 s", "1.5 s"),
        (100_000_000.0, "100 s", "100 s"),
        (7.2e9, "7,200 s", "7,200 s"),
    ],
)
def test_times_have_three_digits_and_their_unit(us: float, text: str, tick: str) -> None:
    assert time_text(us) == text
    assert time_tick(us) == tick


def test_rates_and_ratios() -> None:
    assert [rate_text(value) for value in (None, 0.0, 985.0, 1234.0, 999_999.0, 1.2e9)] == [
        *("–", "0/s", "985/s", "1.23k/s", "1.00M/s", "1.20G/s"),
    ]
    assert [count_tick(value) for value in (100.0, 2500.0, 1e6)] == ["100", "2.5k", "1M"]
    assert [ratio_text(value) for value in (0.0412, 0.5, 1.8, 31.2)] == ["0.041×", "0.50×", "1.80×", "31×"]
