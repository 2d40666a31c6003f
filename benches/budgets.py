"""budgets.toml, read: what each figure has to reach."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().with_name("budgets.toml")


@dataclass(frozen=True, slots=True)
class Budget:
    """One figure's budget; the words are explained in budgets.toml."""

    name: str
    says: str
    unit: str
    better: str
    bar: float
    aim: float

    def holds(self, value: float) -> bool:
        """Is `value` on the right side of the bar?"""
        return value >= self.bar if self.better == "higher" else value <= self.bar

    def reaches_aim(self, value: float) -> bool:
        return value >= self.aim if self.better == "higher" else value <= self.aim

    def verdict(self, value: float) -> str:
        """One word: "aim" reached, bar "ok", or "MISSED"."""
        return "aim" if self.reaches_aim(value) else "ok" if self.holds(value) else "MISSED"


def budgets() -> dict[str, Budget]:
    """All budgets by the name of their figure, in the order of the file; those of `[latency]` once for each row."""
    told = tomllib.loads(FILE.read_text())
    latency = told.pop("latency")
    found = {name: Budget(name=name, **row) for name, row in told.items()}
    for row in latency.pop("rows"):
        transport, era = row.rsplit(" ", 1)
        for kind, rule in latency.items():
            if transport not in rule["transports"]:
                continue
            name = f"{transport}_{era[:4]}_{kind}"
            own = rule.get("own", {}).get(transport, {})
            says = f"{transport}, {era}: {rule['says']}"
            limits = {"bar": rule["bar"], "aim": rule["aim"], **own}
            found[name] = Budget(name, says, rule["unit"], rule["better"], limits["bar"], limits["aim"])
    return found
