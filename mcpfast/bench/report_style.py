"""The report's style sheet: one page for light and dark screens, phones and paper."""

from __future__ import annotations

from collections.abc import Sequence

from mcpfast.bench.report_runs import COLOURS, STEPS

# Ten hues for things side by side, told apart by those who see fewer colours too, and a row of steps from cold to hot
# for rates from low to high.
LIGHT = [
    "#2467c9",
    "#d95f0e",
    "#0f8a68",
    "#c2388d",
    "#7a5195",
    "#a97400",
    "#1295b5",
    "#c8283c",
    "#5b7d1e",
    "#6b6f78",
]
DARK = [
    "#6ea8fe",
    "#ff9a4d",
    "#3ecf9f",
    "#f08bc5",
    "#b79cf0",
    "#e8bd4a",
    "#4fd0ee",
    "#ff8080",
    "#a9cf5e",
    "#b3b8c2",
]
LIGHT_STEPS = ["#0a9a8f", "#2a66d0", "#8a3fc0", "#d23c69", "#d98200"]
DARK_STEPS = ["#3fd0b8", "#5c9bff", "#bb86f5", "#f5749a", "#ffc04d"]

LIGHT_PAGE = """
--page: #ffffff; --panel: #f6f7f9; --ink: #16191d; --soft: #565d68; --rule: #d9dde3; --grid: #e3e6ea;
--good: #0b7a4b; --bad: #b3261e; --bad-panel: #fdecea; --note: #7a5200; --note-panel: #fff6dd;
--p50: #2467c9; --p99: #d95f0e; --max: #8a9099;"""
DARK_PAGE = """
--page: #14171b; --panel: #1d2127; --ink: #e8eaed; --soft: #a4abb6; --rule: #353b44; --grid: #2a2f37;
--good: #5cd69b; --bad: #ff8a80; --bad-panel: #3a1f1e; --note: #f2ca6b; --note-panel: #332a12;
--p50: #6ea8fe; --p99: #ff9a4d; --max: #7f8793;"""

RULES = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 24px 56px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .2rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; }
.soft, .read, figcaption { color: var(--soft); }
.read { font-size: .9rem; max-width: 52rem; }
.found { max-width: 52rem; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.box { border-left: 4px solid; border-radius: 4px; padding: .6rem .9rem; margin: 1rem 0; overflow-wrap: anywhere; }
.box ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.wrong { background: var(--bad-panel); border-color: var(--bad); }
.note { background: var(--note-panel); border-color: var(--note); }
.wrong strong, td.bad { color: var(--bad); } .note strong { color: var(--note); }
td.good { color: var(--good); } td.bad, td.good { font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 1.2rem 0; }
.tile { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-weight: 600; white-space: nowrap; }
.tile span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
.facts th, .facts td { text-align: left; white-space: normal; vertical-align: top; }
tbody th { font-weight: 500; }
th:first-child, td.words { text-align: left; white-space: normal; } td.words { min-width: 8rem; }
th:first-child { min-width: 11.5rem; overflow-wrap: anywhere; position: sticky; left: 0; background: var(--page); }
tbody th:has(.swatch) { padding-left: 2.2rem; } tbody th .swatch { position: absolute; left: .6rem; top: .75rem; }
.figures thead th { min-width: 4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .6rem 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .5rem 0 .3rem; padding: 0; list-style: none;
  font-size: .88rem; }
.legend li { overflow-wrap: anywhere; }
.swatch { display: inline-block; width: 1.1em; height: .7em; border-radius: 2px; margin-right: .45em; background: var(--c);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.swatch.dash0 { background: repeating-linear-gradient(90deg, var(--c) 0 6px, transparent 6px 9px); }
.swatch.dash1 { background: repeating-linear-gradient(90deg, var(--c) 0 2px, transparent 2px 4px); }
.swatch.dash2 { background:
  repeating-linear-gradient(90deg, var(--c) 0 7px, transparent 7px 9px, var(--c) 9px 11px, transparent 11px); }
.swatch.dashed { background: repeating-linear-gradient(90deg, var(--c) 0 4px, transparent 4px 6px); }
figure { margin: .3rem 0 0; } figcaption { margin-top: .6rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 4px 28px; }
.pair > *, .three > * { min-width: 0; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); gap: 12px 28px; margin-top: .8rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 26px 28px; }
.chart { display: flex; flex-direction: column; min-width: 0; } .chart svg { margin-top: auto; }
.chart h3 { font-size: .92rem; line-height: 1.35; margin: 0; } .chart .legend { font-size: .82rem; display: block; }
details { margin: .9rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
svg text { font-size: 12.5px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick, svg .label { fill: var(--soft); } svg .label { font-weight: 600; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .value { font-weight: 600; }
svg .name, svg .value { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; }
.grid { stroke: var(--grid); stroke-width: 1; fill: none; } .grid.faint { stroke-opacity: .45; }
.axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; stroke-linecap: round; }
.line.thin { stroke-width: 1.25; } .line.dashed { stroke-dasharray: 6 5; stroke-width: 1.6; }
.line.dash0 { stroke-dasharray: 7 5; } .line.dash1 { stroke-dasharray: 2 4; } .line.dash2 { stroke-dasharray: 9 4 2 4; }
.dot { fill: var(--c); stroke: var(--page); stroke-width: 1.5; }
.dot.hollow { fill: var(--page); stroke: var(--c); stroke-width: 2; }
.bar { fill: var(--c); } .level { stroke: var(--c, var(--soft)); stroke-dasharray: 5 4; fill: none; }
.level.bad { stroke-dasharray: none; } svg tspan { fill: var(--c, var(--soft)); }
.stem { stroke: var(--bad); stroke-width: 2.5; fill: none; }
.band { fill: var(--ink); fill-opacity: 0; } .band:hover { fill-opacity: .1; } .dot:hover { stroke: var(--ink); }
.narrow { display: none; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; color: var(--soft); font-size: .85rem; }
@media screen and (max-width: 760px) {
  main { padding: 18px 14px 40px; } h1 { font-size: 1.35rem; }
  .wide { display: none; } .narrow { display: block; }
  th:first-child { min-width: 8.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
}
@media print {
  @page { margin: 14mm; }
  main { max-width: none; padding: 0; } body { font-size: 11pt; }
  figure:not(:has(.row, .chart)), svg, .tile, tr, .box, .row, .chart, .found, .legend { break-inside: avoid; }
  h2, h3, .found, .legend { break-after: avoid; }
  .scroll { overflow: visible; } .figures thead th { min-width: 0; }
  table { font-size: 7.5pt; } th, td { padding: .25rem .3rem; } th:first-child { min-width: 6rem; position: static; }
  tbody th:has(.swatch) { padding-left: .3rem; } tbody th .swatch { position: static; }
  .three { grid-template-columns: 1fr 1fr 1fr; } .pair { grid-template-columns: 1fr 1fr; }
  .tile, .box { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .band { display: none; }
}
"""


def style() -> str:
    light = f":root {{ color-scheme: light dark; {LIGHT_PAGE} }}\n{colours(LIGHT, LIGHT_STEPS)}"
    dark = f":root {{ {DARK_PAGE} }}\n{colours(DARK, DARK_STEPS)}"
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{RULES}"


def colours(hues: Sequence[str], stops: Sequence[str]) -> str:
    fixed = [f".{name} {{ --c: var(--{name}); }}" for name in ("p50", "p99", "max", "good", "bad")]
    side_by_side = [f".c{at} {{ --c: {hues[at]}; }}" for at in range(COLOURS)]
    low_to_high = [f".q{at} {{ --c: {between(stops, at / (STEPS - 1))}; }}" for at in range(STEPS)]
    return "\n".join([*fixed, *side_by_side, *low_to_high])


def between(stops: Sequence[str], share: float) -> str:
    """The colour at this share of the way along the stops."""
    at = min(int(share * (len(stops) - 1)), len(stops) - 2)
    part = share * (len(stops) - 1) - at
    ends = [[int(stop[place : place + 2], 16) for place in (1, 3, 5)] for stop in stops[at : at + 2]]
    mixed = [round(a + (b - a) * part) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
