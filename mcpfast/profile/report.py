"""What a session tells at its end: where the results are, the ten hottest things, how to read it; as text and as a page."""

from __future__ import annotations

import html
import platform
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARAGRAPH = re.compile(r"\n\s*\n")
CODE = re.compile(r"`([^`]+)`")


@dataclass(slots=True)
class Report:
    """What an instrument found. `rows` are under `columns`, the hottest first; the last column is the widest."""

    instrument: str
    title: str  # of the table
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    files: list[tuple[Path, str]]  # and what each of them is
    reading: str  # the page of words: paragraphs, and lists of lines that begin with "- "
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    picture: Path | None = None  # a flame graph
    plot: Path | None = None  # what happened over time, above it
    more: Sequence[
        tuple[str, Sequence[str], Sequence[Sequence[str]]]
    ] = ()  # tables below: title, columns, rows
    figures: dict[str, Any] | None = None  # for --json

    def tables(self) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        return [(self.title, self.columns, self.rows), *self.more]

    def text(self) -> str:
        """For a terminal."""
        lines = [*self.facts, *(f"WARNING: {warning}" for warning in self.warnings), ""]
        for title, columns, rows in self.tables():
            if rows:
                lines += [f"{title}:", "", *table(columns, rows), ""]
        lines += ["The results:", ""]
        wide = max(len(str(path)) for path, _ in self.files)
        lines += [f"  {path!s:{wide}}  {what}" for path, what in self.files]
        lines += ["", f"How to read them ({self.instrument})", "", reading_text(self.reading)]
        return "\n".join(lines) + "\n"

    def page(self) -> str:
        """index.html: the same, with the picture in it."""
        title = f"{self.instrument}: {self.facts[0]}" if self.facts else self.instrument
        folder = self.files[0][0].parent
        links = "".join(
            f'<li><a href="{html.escape(str(path.relative_to(folder)))}">{html.escape(path.name)}</a> {html.escape(what)}</li>'
            for path, what in self.files
            if path.name != "index.html"
        )
        pictures = [(self.plot, "over time"), (self.picture, "flame graph")]
        return PAGE.format(
            style=STYLE,
            title=html.escape(title),
            facts="<br>".join(html.escape(fact) for fact in self.facts[1:]),
            warnings="".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in self.warnings),
            tables="".join(table_html(*one) for one in self.tables() if one[2]),
            pictures="".join(picture_html(path, what) for path, what in pictures if path is not None),
            links=links,
            instrument=html.escape(self.instrument),
            reading=reading_html(self.reading),
        )


def picture_html(path: Path, what: str) -> str:
    name = html.escape(path.name)
    return (
        f'<object data="{name}" type="image/svg+xml" aria-label="{what}"></object>'
        f'<p class="dim"><a href="{name}">The picture on a page of its own</a></p>'
    )


def table_html(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<h2>{html.escape(title)}</h2>\n<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: numbers to the right, the last column as it is."""
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns) - 1)]

    def line(cells: Sequence[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths, strict=False)]
        return "  " + "  ".join([*numbers, cells[-1]])

    return [line(columns), *(line(row) for row in rows)]


def reading_text(words: str) -> str:
    """The page of words, laid out for a terminal."""
    said = []
    for paragraph in PARAGRAPH.split(words.strip()):
        lines = [" ".join(part.split()) for part in re.split(r"(?m)^- ", paragraph)]
        if lines[0]:
            said.append(textwrap.fill(lines[0], 100, initial_indent="  ", subsequent_indent="  "))
        if lines[1:]:
            said.append(
                "\n".join(
                    textwrap.fill(line, 100, initial_indent="  - ", subsequent_indent="    ")
                    for line in lines[1:]
                )
            )
    return "\n\n".join(said)


def reading_html(words: str) -> str:
    """The page of words as HTML."""
    said = []
    for paragraph in PARAGRAPH.split(words.strip()):
        lines = [
            CODE.sub(r"<code>\1</code>", html.escape(" ".join(part.split())))
            for part in re.split(r"(?m)^- ", paragraph)
        ]
        said.append(f"<p>{lines[0]}</p>" if lines[0] else "")
        if lines[1:]:
            said.append("<ul>" + "".join(f"<li>{line}</li>" for line in lines[1:]) + "</ul>")
    return "\n".join(said)


def machine() -> str:
    """In a sentence: which machine, which Python, which mcpfast."""
    from mcpfast import __version__

    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return f"mcpfast {__version__}, Python {platform.python_version()}, {system}"


STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1f2328; --dim: #656d76; --line: #d8dce0; --soft: #f1f2f4;
        --warning: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e6e8eb; --dim: #9aa2ab; --line: #333840; --soft: #22252b;
        --warning: #ff8a80; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; } .dim, thead { color: var(--dim); }
.warning { color: var(--warning); font-weight: 600; } object { width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } td, th { padding: .2em .9em .2em 0; text-align: right;
        border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
td:last-child, th:last-child { text-align: left; font-family: ui-monospace, monospace; white-space: normal;
       overflow-wrap: anywhere; }
th:last-child { font-family: inherit; } code { background: var(--soft); padding: .1em .3em; border-radius: 3px; }
.words { max-width: 50em; } a { color: inherit; }
"""

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
<p>{facts}</p>{warnings}
{pictures}
{tables}
<h2>The files</h2>
<ul>{links}</ul>
<h2>How to read them ({instrument})</h2>
<div class="words">{reading}</div>
</body></html>
"""
