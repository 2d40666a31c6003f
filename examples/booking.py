"""Asking the user in the middle of a call. One handler serves clients of every revision.

A client of 2025-11-25 is asked at once, and the handler waits. A client of 2026-07-28 gets the questions as the answer of its
call, and calls again with what its user said: then the handler runs again from the top, the earlier answers are there at once,
and `ctx.once` gives what it gave before.

    mcpfast call examples/booking.py book '{"day": "Friday"}'
"""

from typing import Annotated, Literal

import msgspec

from mcpfast import Context, MCPServer

server = MCPServer("booking", version="1.0")
held: list[str] = []  # what was really done, to show that it is done once


class Wish(msgspec.Struct):
    "What kind of table."

    people: Annotated[int, msgspec.Meta(ge=1, le=8, description="How many of you?")]
    place: Literal["inside", "garden"] = "inside"


class Contact(msgspec.Struct):
    "Whom to tell when it is ready."

    name: str
    mail: str


def hold_table(day: str) -> int:
    held.append(day)
    return len(held)


@server.tool
async def book(day: str, ctx: Context) -> str:
    "Book a table. Asks what kind, and for whom, in one go; then asks to confirm."
    number = await ctx.once("hold", lambda: hold_table(day))
    wish, contact = await ctx.gather(
        ctx.elicit(f"A table for {day}?", Wish, key="wish"),
        ctx.elicit("Who are you?", Contact, key="contact"),
    )
    if wish.action != "accept" or contact.action != "accept":
        return "Nothing was booked."
    sure = await ctx.elicit(
        f"{wish.data.people} people, {wish.data.place}, {day}. Book it?", bool, key="sure"
    )
    if sure.action != "accept" or not sure.data:
        return "Nothing was booked."
    return f"Table {number} on {day} for {contact.data.name}: {wish.data.people} people, {wish.data.place}"


if __name__ == "__main__":
    server.run()
