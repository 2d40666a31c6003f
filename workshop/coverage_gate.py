"""Holds the coverage figures to [tool.mcpfast.coverage] of pyproject.toml: the total, and each critical file at 100 %.

coverage_gate.py REPORT.json      REPORT.json is what `coverage json` wrote
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def shortfalls(report: dict[str, Any], total: float, critical: list[str]) -> list[str]:
    """What is below its bar, one sentence each; nothing when all holds."""
    found = []
    reached = report["totals"]["percent_covered"]
    if reached < total:
        found.append(f"total: {reached:.1f} %, the bar is {total:.1f} %")
    for name in critical:
        file = report["files"].get(name)
        if file is None:
            found.append(
                f"{name}: not measured (was it built with trace? is it named right in pyproject.toml?)"
            )
        elif file["missing_lines"]:
            lines = ", ".join(map(str, file["missing_lines"]))
            found.append(f"{name}: critical, and not run: lines {lines}")
    return found


def main() -> int:
    bars = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mcpfast"]["coverage"]
    report = json.loads(Path(sys.argv[1]).read_text())
    found = shortfalls(report, bars["total"], bars["critical"])
    for line in found:
        print(f"coverage: {line}", file=sys.stderr)
    if not found:
        print(
            f"coverage: {report['totals']['percent_covered']:.1f} %, {len(bars['critical'])} critical files at 100 %"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
