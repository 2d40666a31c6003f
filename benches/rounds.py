"""Ours and a reference in turns. Only what was measured in the same moments is compared.

The machines this runs on are shared: their speed changes by the second, waking another processor costs 2 us in
one second and 5 us in the next, and neighbours take a processor away for milliseconds. So short runs alternate;
of each, the rate counts that a quarter of its slices of 2 ms reached, which is the rate without the neighbours;
each of ours is divided by the reference's beside it, and the median of these ratios is the figure. The ratio of
the two best runs is printed too: the two should be near each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from mcpfast.bench.result import Result

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Contest:
    """Pairs of runs, ours and the reference's."""

    ours: list[Result]
    reference: list[Result]

    @property
    def ratios(self) -> list[float]:
        return [a.rate_p75_per_s / b.rate_p75_per_s for a, b in zip(self.ours, self.reference, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def ratio_of_best(self) -> float:
        return max(run.rate_p75_per_s for run in self.ours) / max(
            run.rate_p75_per_s for run in self.reference
        )

    @property
    def typical(self) -> Result:
        """Our run of the median rate: the one whose latencies are shown."""
        return sorted(self.ours, key=lambda run: run.rate_p75_per_s)[len(self.ours) // 2]


def in_turns(
    first: Callable[[], A], second: Callable[[], B], rounds: int, tell: Callable[[str], None]
) -> list[tuple[A, B]]:
    """Calls both `rounds` times; which one begins changes each time, so that a drift favours neither."""
    pairs = []
    for turn in range(rounds):
        tell(f"round {turn + 1} of {rounds}")
        if turn % 2:
            b = second()
            pairs.append((first(), b))
        else:
            a = first()
            pairs.append((a, second()))
    return pairs


def contest(
    ours: Callable[[], Result], reference: Callable[[], Result], rounds: int, tell: Callable[[str], None]
) -> Contest:
    """Measures both `rounds` times in turns."""
    pairs = in_turns(ours, reference, rounds, tell)
    return Contest([a for a, _ in pairs], [b for _, b in pairs])
