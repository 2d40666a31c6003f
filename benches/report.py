"""`make bench-report`: benches/history as one HTML page, each figure over the landed changes beside its bar and its aim."""

import argparse
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches import history
from benches.charts import LINES_MAX, chart
from benches.history import Entry
from benches.series import Series, change_text, charts_of, groups_of, notable, series_of
from benches.table import with_unit
from mcpfast.bench.report import box, cell, table, write_page
from mcpfast.bench.report_figures import legend
from mcpfast.bench.report_runs import NOTHING

PAGE = Path(__file__).resolve().parents[1] / "build" / "bench-history.html"
VERDICT_COLOURS = {"aim": "good", "ok": "c0", "": "max"}
KEYS = [
    ("c0", "measured; of two eras the older"),
    ("c1", "2026-07-28, where there are two"),
    ("bad", "bar; a dot that misses it"),
    ("good dashed", "aim"),
]
READ = (
    "Each dot is a landed change, the newest on the right; point at a plot to read which, or open the table below it. "
    "A hollow dot is a tree with more in it than its commit. Bars and aims are those of today. Ratios compare with what "
    "was measured in the same moments, so they outlive a change of machine; they still move by some percent from run to "
    "run, instruction counts do not."
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/report.py", description=__doc__)
    parser.add_argument("--history", type=Path, default=history.FILE, metavar="FILE", help="instead of ours")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="instead of build/")
    return parser.parse_args()


def main() -> int:
    given = options()
    try:
        entries = history.read(given.history)
    except history.Unreadable as why:
        print(why, file=sys.stderr)
        return 1
    if not entries:
        print(f"{given.history} has no line yet: `{history.HOW}` adds one.", file=sys.stderr)
        return 1
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_history(entries, given.out)
    print(given.out)
    return 0


def write_history(entries: Sequence[Entry], file: Path) -> None:
    """The page of these lines, oldest first; there must be one at least."""
    figures = series_of(entries)
    before = history.last_landed(entries[:-1])
    at = entries.index(before) if before else None
    body = [
        heading(entries),
        tiles(figures),
        box("note", "Before you read the figures", notes(entries, figures)),
        f'{legend(KEYS)}<p class="read">{READ}</p>',
        *(group_section(name, group, entries) for name, group in groups_of(figures).items()),
        last_change(figures, entries, at),
        changes(entries),
        "<footer>Measured by <code>make bench ARGS=--record</code>, drawn by <code>make bench-report</code>.</footer>",
    ]
    write_page("mcpfast: the figures over its changes", body, file)


# ---- above the plots -------------------------------------------------------------------------------------


def heading(entries: Sequence[Entry]) -> str:
    last, count = entries[-1], len(entries)
    dates = " to ".join(dict.fromkeys([entries[0].date[:10], last.date[:10]]))
    said = f"{count} change{'s' * (count != 1)}, {dates}. The last one:"
    return (
        f'<header><h1>mcpfast: the figures over its changes</h1><p class="soft">{escape(said)} '
        f"<code>{escape(last.label)}</code> {escape(last.subject)}</p></header>"
    )


def tiles(figures: Sequence[Series]) -> str:
    """How the last line stands."""
    verdicts = [one.verdicts[-1] for one in figures if one.budget]
    missed, unknown = verdicts.count("MISSED"), sum(one not in ("aim", "ok", "MISSED") for one in verdicts)
    shown = {
        "reach their aim": verdicts.count("aim"),
        "hold their bar": verdicts.count("ok"),
        "miss their bar": missed,
        "were not measured": unknown,
    }
    inner = "".join(
        f'<div class="tile"><b>{count}</b><span>{name}</span></div>' for name, count in shown.items()
    )
    return f'<section class="tiles">{inner}</section>'


def notes(entries: Sequence[Entry], figures: Sequence[Series]) -> list[str]:
    said = []
    if len({(entry.python, str(entry.machine)) for entry in entries[-LINES_MAX:]}) > 1:
        said.append(
            "The lines come from different machines or Pythons: memory and instructions do not compare then."
        )
    if len(entries) > LINES_MAX:
        said.append(f"The newest {LINES_MAX} of {len(entries)} changes are drawn.")
    unknown = [one.name for one in figures if not one.measured]
    if unknown:
        said.append(f"In no line yet: {escape(', '.join(unknown))}.")
    return said


# ---- the figures -----------------------------------------------------------------------------------------


def group_section(name: str, group: Sequence[Series], entries: Sequence[Entry]) -> str:
    drawn = "".join(chart(parts, entries) for parts in charts_of(group))
    if not drawn:
        return ""
    return (
        f'<section><h2>{escape(name)}</h2><div class="charts">{drawn}</div>{values(group, entries)}</section>'
    )


def values(group: Sequence[Series], entries: Sequence[Entry]) -> str:
    """What the plots show, for those who cannot point at them; the newest change first."""
    newest = range(len(entries) - 1, max(-1, len(entries) - 1 - LINES_MAX), -1)
    rows = [named(one) + "".join(value_cell(one, at) for at in newest) for one in group if one.measured]
    shown = table(["figure", *(entries[at].label for at in newest)], rows)
    return f"<details><summary>These figures as a table</summary>{shown}</details>"


def named(one: Series, colour: str = "") -> str:
    swatch = f'<span class="swatch {colour}"></span>' if colour else ""
    name = escape(one.name).replace("_", "_<wbr>")  # a phone has no room for it in one line
    return f'<th scope="row">{swatch}{name}</th>'


def value_cell(one: Series, at: int | None) -> str:
    value = None if at is None else one.values[at]
    if at is None or value is None:
        return cell(NOTHING)
    return cell(with_unit(value, one.unit), "bad" if one.verdicts[at] == "MISSED" else "")


def last_change(figures: Sequence[Series], entries: Sequence[Entry], before: int | None) -> str:
    """The last line beside the landed one before it."""
    was = f"before: {entries[before].label}" if before is not None else "before"
    head = ["figure", was, f"last: {entries[-1].label}", "change", "bar", "aim", "verdict"]
    shown = [one for one in figures if one.measured]
    found = moved([one for one in shown if before is not None and one.change(before) is not None], before)
    said = "Coloured: a change of more than 10 %, of instructions more than 3 %. Smaller ones may be the weather."
    return (
        f'<section><h2>What the last change did</h2><p class="found">{escape(found)}</p>'
        f"{table(head, [last_row(one, before) for one in shown])}"
        f'<p class="read">{said}</p></section>'
    )


def last_row(one: Series, before: int | None) -> str:
    verdict = one.verdicts[-1]
    limits = (
        [with_unit(limit, one.unit) for limit in (one.budget.bar, one.budget.aim)] if one.budget else ["", ""]
    )
    change = one.change(before) if before is not None else None
    kind = ("good" if one.is_better(change) else "bad") if change is not None and notable(one, change) else ""
    return "".join(
        [
            named(one, VERDICT_COLOURS.get(verdict, "bad")),
            value_cell(one, before),
            value_cell(one, -1),
            cell(change_text(change), kind),
            *map(cell, limits),
            cell(verdict, "words" if verdict in VERDICT_COLOURS else "words bad"),
        ]
    )


def moved(figures: Sequence[Series], before: int | None) -> str:
    """In words: which figures moved by more than the weather."""
    if before is None:
        return "There is no landed change before it to compare with."
    large = [(one, change) for one in figures if notable(one, change := one.change(before) or 0.0)]
    if not large:
        return "No figure moved by more than the weather."
    said = []
    for word, better in (("Better", True), ("Worse", False)):
        names = [
            f"{one.name} ({change_text(change)})" for one, change in large if one.is_better(change) is better
        ]
        said += [f"{word}: {', '.join(names)}."] if names else []
    return " ".join(said)


def changes(entries: Sequence[Entry]) -> str:
    """Every line, newest first: what it was, and what it was measured on."""
    head = ["change", "measured", "missed", "mcpfast", "Python", "machine", "taken by others"]

    def row(entry: Entry) -> str:
        missed = [name for name, verdict in entry.verdicts.items() if verdict == "MISSED"]
        machine = ", ".join(
            f"{value} processors" if key == "processors" else str(value)
            for key, value in entry.machine.items()
        )
        facts = [entry.date.replace("T", " ")[:16], ", ".join(missed) or NOTHING]
        facts += [entry.mcpfast, entry.python, machine, f"{entry.busy:.0%}".replace("%", " %")]
        change = f"<code>{escape(entry.label)}</code> {escape(entry.subject)}"
        return f'<th scope="row">{change}</th>' + "".join(map(cell, facts))

    return f"<section><h2>The changes</h2>{table(head, map(row, reversed(entries)), 'facts')}</section>"


if __name__ == "__main__":
    sys.exit(main())
