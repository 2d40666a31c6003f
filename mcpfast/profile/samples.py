"""The report of an instrument that samples stacks: a picture, the lines that it was drawn from, the hottest functions."""

from __future__ import annotations

from mcpfast.profile.flamegraph import draw
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session
from mcpfast.profile.stacks import Stacks, hottest, write_folded


def sampled(
    name: str, session: Session, stacks: Stacks, told: list[str], warnings: list[str], reading: str
) -> Report:
    samples = sum(stacks.values())
    picture, folded = session.folder / "flamegraph.svg", session.folder / "stacks.txt"
    with session.progress.step("drawing"):
        picture.write_text(draw(stacks, f"{session.target.title}, seen by {name}", "; ".join(told)))
        folded.write_text(write_folded(stacks))
    return Report(
        instrument=name,
        title="Where the samples end",
        columns=("own", "all", "function"),
        rows=[
            (f"{heat.own / samples:.1%}", f"{heat.total / samples:.1%}", heat.function)
            for heat in hottest(stacks)
        ],
        files=[
            (picture, "the flame graph"),
            (folded, "what it was drawn from, for speedscope and others: a line a stack, with its samples"),
        ],
        reading=reading,
        facts=told,
        warnings=warnings,
        picture=picture,
    )
