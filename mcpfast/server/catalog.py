"""What a server offers: tools, resources, templates, prompts; and their lists as prepared bytes.

A list costs 38 us to encode and 0.9 us to hand out, so every page is made once for each revision and kept until something
changes. The order is that of registration, in every revision (section 12, T3).
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mcpfast._core import Table
from mcpfast._entry import Entry
from mcpfast.errors import INVALID_PARAMS, MCPError, RegistrationError
from mcpfast.protocol import messages, projection
from mcpfast.protocol.revisions import Revision

# What a handler's parameters and results look like is known to `signature`; here it is only carried.
Describe = Callable[[], dict[str, Any]]
PAGES_MAX = 4_096  # prepared pages of one shelf: of each view, revision and place
PAGES_BYTES_MAX = (
    64 << 20
)  # of all these; whoever has many scopes can ask for a token, and so for a view, of any of them


class Offer:
    """One thing on offer. `describe()` gives it as the newest revision lists it, made when first asked for."""

    __slots__ = ("_described", "_describe", "key", "ordinal", "owner")

    def __init__(self, key: str, describe: Describe, owner: Any) -> None:
        self.key = key
        self.ordinal = 0
        self.owner = owner
        self._describe = describe
        self._described: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        if self._described is None:
            self._described = self._describe()
        return self._described


class ListView(Protocol):
    """Who is shown a part of a list."""

    @property
    def key(self) -> object:
        """Equal for all who are shown the same."""

    def shows(self, key: str, owner: Any) -> bool: ...

    def seal(self, place: str) -> str:
        """A cursor that nobody else can use."""

    def open(self, cursor: str) -> str:
        """The place that such a cursor names. Raises ValueError."""


class _Page(NamedTuple):
    """`members` as they stand in the result; `place` is the last item's, where others follow that only its own client may ask
    for, or None."""

    members: bytes
    place: str | None


T = TypeVar("T")


class Shelf(Generic[T]):
    """All offers of one kind, in order, with their lists. `kind` is "tools", "prompts" or "resources" (what changes together).

    Changed and listed from any thread: a page is made and kept under the lock, so that none outlives a change.
    """

    def __init__(
        self,
        kind: str,
        member: str,
        project: Callable[[dict[str, Any], Revision], dict[str, Any]],
        changed: Callable[[str], None],
    ) -> None:
        self.kind = kind
        self.member = member  # the name of the list in its result
        self._project = project
        self._changed = changed
        self._offers: dict[str, Offer] = {}
        self.version = 0  # grows with every change
        self._last = 0
        self._pages: dict[tuple[object, int, int, int], _Page] = {}
        self._pages_bytes = 0
        self._lock = threading.Lock()

    def add(self, offer: Offer, *, replace: bool = False) -> None:
        with self._lock:
            if offer.key in self._offers and not replace:
                raise RegistrationError(
                    f"{self.member[:-1].capitalize()} {offer.key!r} is registered already; "
                    "remove the first one, or give this one another name"
                )
            self._last += 1
            offer.ordinal = self._last
            self._offers[offer.key] = offer
            self._touch()
        self._changed(self.kind)

    def remove(self, key: str) -> Offer:
        with self._lock:
            offer = self._offers.pop(key, None)
            self._touch()
        if offer is None:
            raise RegistrationError(f"No {self.member[:-1]} {key!r} is registered")
        self._changed(self.kind)
        return offer

    def _touch(self) -> None:
        self.version += 1
        self._let_go()

    def get(self, key: str) -> T | None:
        """The registered object, or None."""
        offer = self._offers.get(key)
        return None if offer is None else offer.owner

    def __iter__(self) -> Iterator[T]:
        return iter([offer.owner for offer in list(self._offers.values())])

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, key: str) -> bool:
        return key in self._offers

    def page(
        self, revision: Revision, cursor: str | None, page_items: int, view: ListView | None = None
    ) -> bytes:
        """The members of a list result, without its braces: `"tools":[...],"nextCursor":"..."`. Of `view`, where one is given:
        who has equal keys gets the same bytes. Raises MCPError -32602."""
        after = 0 if cursor is None else self._read_cursor(cursor, view)
        key = (None if view is None else view.key, revision.number, after, page_items)
        prepared = self._pages.get(key)
        if prepared is None:
            with self._lock:
                prepared = self._keep(key, self._make_page(revision, after, page_items, view))
        if view is None or prepared.place is None:
            return prepared.members
        return b'%b,"nextCursor":"%b"' % (prepared.members, view.seal(prepared.place).encode())

    def _keep(self, key: tuple[object, int, int, int], page: _Page) -> _Page:
        size = len(page.members)
        if len(self._pages) >= PAGES_MAX or self._pages_bytes + size > PAGES_BYTES_MAX:
            self._let_go()
        self._pages[key] = page
        self._pages_bytes += size
        return page

    def _let_go(self) -> None:
        self._pages.clear()
        self._pages_bytes = 0

    def _make_page(self, revision: Revision, after: int, page_items: int, view: ListView | None) -> _Page:
        rest = [
            offer
            for offer in self._offers.values()
            if offer.ordinal > after and (view is None or view.shows(offer.key, offer.owner))
        ]
        shown = rest[:page_items] if page_items else rest
        items = [self._project(offer.describe(), revision) for offer in shown]
        body = b'"%b":%b' % (self.member.encode(), messages.encode(items))
        if len(shown) == len(rest):
            return _Page(body, None)
        place = f"{self.member}:{shown[-1].ordinal}"
        if view is not None:
            return _Page(body, place)
        return _Page(body + b',"nextCursor":"%b"' % base64.urlsafe_b64encode(place.encode()), None)

    # A cursor names the last item seen by its place in the order of registration, so that it holds on every worker that
    # registers the same things, and when others come or go. It tells nothing that the list itself does not; where tenants
    # are served it is sealed, since how many others there are is theirs to know.

    def _read_cursor(self, cursor: str, view: ListView | None) -> int:
        try:
            if view is None:
                place = base64.b64decode(cursor, b"-_", validate=True).decode()
            else:
                place = view.open(cursor)
            member, ordinal = place.split(":")
            if member == self.member and 0 < int(ordinal) <= self._last and str(int(ordinal)) == ordinal:
                return int(ordinal)
        except (ValueError, binascii.Error):
            pass
        raise MCPError(INVALID_PARAMS, "Invalid cursor: take the nextCursor of the last page as it is")


class Catalog:
    """The shelves of one server, and the compiled table of its tools. `changed(kind)` is called at every change."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self.table = Table()
        self.tools: Shelf[Any] = Shelf("tools", "tools", projection.tool, changed)
        self.resources: Shelf[Any] = Shelf("resources", "resources", projection.describe, changed)
        self.templates: Shelf[Any] = Shelf("resources", "resourceTemplates", projection.describe, changed)
        self.prompts: Shelf[Any] = Shelf("prompts", "prompts", projection.describe, changed)

    def add_tool(self, tool: Any, entry: Entry, describe: Describe, *, replace: bool = False) -> None:
        """A tool with its compiled entry; the table holds its name as it stands in JSON."""
        self.tools.add(Offer(entry.name, describe, tool), replace=replace)
        self.table[messages.encode(entry.name)[1:-1]] = entry

    def remove_tool(self, name: str) -> None:
        if name in self.tools:  # out of the table before anybody is told
            del self.table[messages.encode(name)[1:-1]]
        self.tools.remove(name)
