"""Draws samples of stacks as a flame graph: one SVG that stands alone, readable on white and on black.

Our own, and not that of each instrument, for three reasons: the table and the picture come from the same samples, colours say
which world a frame belongs to (Python, Cython, C, kernel), and no library on PyPI draws one from stacks that are at hand.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import NamedTuple

from mcpfast.profile.stacks import Stacks

WIDTH, ROW, TOP, BOTTOM = 1200, 17, 78, 12
LETTER = 6.3  # the width of a letter of the monospaced 10.5 px font, a little generous
LINE_LETTERS = 180  # that fit into a line
NARROWEST = 0.15  # px; what is narrower cannot be seen, and would only make the file long
KINDS = {"python": "Python", "cython": "Cython", "native": "C", "kernel": "kernel", "other": "process"}


@dataclass(slots=True)
class Box:
    """A frame in the place where it was called from; `samples` includes what it called."""

    name: str
    samples: int = 0
    inner: dict[str, Box] = field(default_factory=dict)


def kind(frame: str) -> str:
    """Which world a frame belongs to, by what stands behind its name."""
    if frame.endswith(("[kernel]", "_[k]")):
        return "kernel"
    _, _, where = frame.rpartition(" (")
    if not frame.endswith(")") or not where:
        return "other"
    file = where[:-1].partition(":")[0]
    if file.endswith((".pyx", ".pxd", ".pxi")):
        return "cython"
    return "python" if file.endswith(".py") or file.startswith("<") else "native"


def tree(stacks: Stacks) -> Box:
    root = Box("all")
    for stack, samples in stacks.items():
        here = root
        here.samples += samples
        for frame in stack:
            here = here.inner.setdefault(frame, Box(frame))
            here.samples += samples
    return root


class Place(NamedTuple):
    """Where a box stands: shares of everything from the left, rows from the bottom."""

    box: Box
    left: float
    share: float
    row: int


def draw(stacks: Stacks, title: str, subtitle: str, unit: str = "samples") -> str:
    """The SVG. Boxes stand on those that called them; their order from left to right is the alphabet."""
    places = placed(tree(stacks))
    height = TOP + (max(place.row for place in places) + 1) * ROW + BOTTOM
    bottom = height - BOTTOM - ROW
    legend = "".join(
        f'<rect class="{name}" x="{10 + 84 * place}" y="56" width="12" height="12" rx="2"/>'
        f'<text x="{26 + 84 * place}" y="66">{label}</text>'
        for place, (name, label) in enumerate(KINDS.items())
    )
    return TEMPLATE.format(
        width=WIDTH,
        height=height,
        title=html.escape(title),
        subtitle=html.escape(
            subtitle if len(subtitle) <= LINE_LETTERS else subtitle[: LINE_LETTERS - 1] + "…"
        ),
        legend=legend,
        boxes="".join(_drawn(place, bottom, unit) for place in places),
        right=WIDTH - 10,
        left_of_search=WIDTH - 70,
        bottom=bottom,
        row=ROW,
        letter=LETTER,
        style=STYLE,
        script=SCRIPT,
    )


def placed(root: Box) -> list[Place]:
    """Every box that is wide enough to be seen. No recursion: stacks may be deep."""
    everything = max(root.samples, 1)
    found = []
    waiting = [(root, 0, 0)]
    while waiting:
        box, begin, row = waiting.pop()
        share = box.samples / everything
        if row and share * (WIDTH - 20) < NARROWEST:
            continue
        found.append(Place(box, begin / everything, share, row))
        for inner in sorted(box.inner.values(), key=lambda inner: inner.name):
            waiting.append((inner, begin, row + 1))
            begin += inner.samples
    return found


def _drawn(place: Place, bottom: int, unit: str) -> str:
    """A box as SVG, in its place already: viewers that run no script show the whole picture, too."""
    box, left, share, row = place
    name = "".join(letter if letter.isprintable() else "?" for letter in box.name)
    letters = int((share * (WIDTH - 20) - 6) / LETTER)
    shown = "" if letters < 3 else name if len(name) <= letters else name[: letters - 1] + "…"
    x, y = 10 + left * (WIDTH - 20), bottom - row * ROW
    return (
        f'<g class="{kind(box.name) if row else "other"}" data-x="{left:.6f}" data-w="{share:.6f}" data-d="{row}">'
        f"<title>{html.escape(name)}\n{box.samples:,} {unit}, {share:.2%}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{share * (WIDTH - 20):.2f}" height="{ROW - 1}"/>'
        f'<text x="{x + 3:.1f}" y="{y + ROW - 5}">{html.escape(shown)}</text></g>\n'
    )


STYLE = """
svg { --paper: #fcfcfb; --ink: #1f2328; --dim: #656d76; --python: #8db8f0; --cython: #f2c14e; --native: #f0a07a;
      --kernel: #c3a6e0; --other: #c8ccd1; --box: #1f2328; --found: #e5488f; background: var(--paper);
      font: 10.5px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) {
svg { --paper: #16181c; --ink: #e6e8eb; --dim: #9aa2ab; --python: #3d6fb5; --cython: #9c7412; --native: #a8542c;
      --kernel: #7250a0; --other: #4b515a; --box: #f4f5f6; --found: #d1277a; } }
text { fill: var(--ink); pointer-events: none; } text.dim { fill: var(--dim); } text.title { font-size: 15px; font-weight: 600; }
g > text { fill: var(--box); } g { cursor: pointer; } g > rect { stroke: var(--paper); stroke-width: .6; rx: 2px; }
g:hover > rect { stroke: var(--ink); stroke-width: 1.2; }
.python > rect, rect.python { fill: var(--python); } .cython > rect, rect.cython { fill: var(--cython); }
.native > rect, rect.native { fill: var(--native); } .kernel > rect, rect.kernel { fill: var(--kernel); }
.other > rect, rect.other { fill: var(--other); } g.found > rect { fill: var(--found); } g.outer { opacity: .55; }
.button { cursor: pointer; pointer-events: all; text-decoration: underline; }
"""

SCRIPT = """
"use strict";
const svg = document.querySelector("svg"), all = [...svg.querySelectorAll("g")];
const at = all.map(g => ({
  g, x: +g.dataset.x, w: +g.dataset.w, d: +g.dataset.d, rect: g.querySelector("rect"), text: g.querySelector("text"),
  name: g.querySelector("title").textContent.split("\\n")[0],
}));
const WIDTH = svg.viewBox.baseVal.width - 20, ROW = +svg.dataset.row, BASE = +svg.dataset.bottom, LETTER = +svg.dataset.letter;
const told = svg.querySelector("#told"), reset = svg.querySelector("#reset");
let zoomed = at[0], sought = null;
function show(to) {
  zoomed = to;
  for (const b of at) {
    const outer = b.d < to.d && b.x <= to.x + 1e-7 && b.x + b.w >= to.x + to.w - 1e-7;
    const x = outer ? 0 : (b.x - to.x) / to.w, w = outer ? 1 : b.w / to.w;
    const inside = outer || (b.d >= to.d && x >= -1e-7 && x + w <= 1 + 1e-6);
    b.g.style.display = inside && w * WIDTH >= .15 ? "" : "none";
    if (!inside) continue;
    b.g.classList.toggle("outer", outer);
    const px = 10 + x * WIDTH, py = BASE - b.d * ROW;
    b.rect.setAttribute("x", px); b.rect.setAttribute("y", py);
    b.rect.setAttribute("width", Math.max(w * WIDTH, .1)); b.rect.setAttribute("height", ROW - 1);
    const letters = Math.floor((w * WIDTH - 6) / LETTER);
    b.text.textContent = letters < 3 ? "" : b.name.length <= letters ? b.name : b.name.slice(0, letters - 1) + "\\u2026";
    b.text.setAttribute("x", px + 3); b.text.setAttribute("y", py + ROW - 5);
  }
  reset.style.display = to === at[0] ? "none" : "";
  tell();
}
function tell(box) {
  if (box) { told.textContent = box.g.querySelector("title").textContent.replace("\\n", ": "); return; }
  if (!sought) { told.textContent = "a click zooms in, Ctrl-F searches"; return; }
  let sum = 0, end = -1;  // boxes inside a box that was counted are not counted again
  for (const b of at.filter(b => b.found).sort((a, b) => a.x - b.x || a.d - b.d))
    if (b.x >= end - 1e-9) { sum += b.w; end = b.x + b.w; }
  told.textContent = "/" + sought.source + "/ is in " + (100 * sum).toFixed(1) + " % of all";
}
function search() {
  const said = prompt("a name, or a regular expression (empty: none)", sought ? sought.source : "");
  if (said === null) return;
  try { sought = said ? new RegExp(said, "i") : null; } catch { sought = new RegExp(said.replace(/[^\\w]/g, "\\\\$&"), "i"); }
  for (const b of at) { b.found = sought && b.d > 0 && sought.test(b.name); b.g.classList.toggle("found", !!b.found); }
  tell();
}
for (const b of at) {
  b.g.addEventListener("click", () => show(b));
  b.g.addEventListener("mouseenter", () => tell(b)); b.g.addEventListener("mouseleave", () => tell());
}
reset.addEventListener("click", () => show(at[0])); svg.querySelector("#search").addEventListener("click", search);
addEventListener("keydown", e => {
  if ((e.ctrlKey || e.metaKey) && e.key === "f") { e.preventDefault(); search(); }
  if (e.key === "Escape") show(at[0]);
});
function fit() { if (top === self) svg.style.height = innerWidth * svg.viewBox.baseVal.height / svg.viewBox.baseVal.width + "px"; }
addEventListener("resize", fit); fit();
show(at[0]);
"""

TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%" preserveAspectRatio="xMidYMin" \
data-row="{row}" data-bottom="{bottom}" data-letter="{letter}"><style>{style}</style>
<text class="title" x="10" y="24">{title}</text><text class="dim" x="10" y="42">{subtitle}</text>
<text class="button" id="search" x="{right}" y="24" text-anchor="end">search</text>
<text class="button" id="reset" x="{left_of_search}" y="24" text-anchor="end" style="display:none">zoom out</text>
{legend}<text class="dim" id="told" x="{right}" y="66" text-anchor="end"></text>
{boxes}<script><![CDATA[{script}]]></script></svg>
"""
