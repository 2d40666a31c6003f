"""What a principal may use: views, shared by all who may use the same.

A tool, resource or prompt states what it asks for (`Requirement`). A tenant's patterns, its kind and the scopes of whoever is
asking are a `ViewKey`; equal keys share one `View`, so 10,000 tenants of three plans have a handful of views, and prepared
bytes of lists may be kept per (view, revision, page).

Patterns are those of fnmatch, with capitals told apart: ``*`` any text (slashes, too), ``?`` one letter, ``[abc]`` one of
these. They are held against names of tools and prompts, and against URIs of resources in their canonical spelling, encoded and
plain; `deny` is stronger than `allow`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Set
from fnmatch import translate
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import unquote

from mcpfast.tenancy.identity import Kind
from mcpfast.tenancy.namespace import UnsafeName, canonical_uri

VIEWS_MAX = 1_024
DECISIONS_MAX = 10_000  # remembered by one view
PATTERNS_MAX = 1_024  # compiled, of all tenants
_QUERY_OR_FRAGMENT = re.compile("[?#]")
_DOUBLED = re.compile(
    "(?<!:)(?<!:/)//+"
)  # but for the two behind the scheme: whoever opens a path takes these for one


class Requirement(NamedTuple):
    """What an offer asks for: all of these scopes, and one of these kinds of tenants (none named: any)."""

    scopes: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()


class Decision(NamedTuple):
    """`hidden`: as if it did not exist. `step-up`: not listed, and a call is told which scopes a new token must have, too."""

    verdict: Literal["visible", "hidden", "step-up"]
    missing: frozenset[str] = frozenset()


VISIBLE = Decision("visible")
HIDDEN = Decision("hidden")
NOTHING_ASKED = Requirement()


class ViewKey(NamedTuple):
    """Who has equal keys sees the same. `grantable` are the tenant's scopes, `scopes` those of them that the principal has."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    kind: Kind
    scopes: frozenset[str]
    grantable: frozenset[str]


class View:
    """`decisions` are those made already, by name and what was asked for: a tool and a prompt may have one name."""

    __slots__ = ("_allow", "_deny", "decisions", "key")

    def __init__(self, key: ViewKey) -> None:
        self.key = key
        self.decisions: dict[tuple[str, Requirement], Decision] = {}
        self._allow = _compiled(key.allow)
        self._deny = _compiled(key.deny)

    def decide(self, name: str, requirement: Requirement = NOTHING_ASKED) -> Decision:
        """For a tool or a prompt that exists. Remembered."""
        key = (name, requirement)
        known = self.decisions.get(key)
        if known is None:
            if len(self.decisions) >= DECISIONS_MAX:
                self.decisions.clear()
            known = self.decisions[key] = self._decide(self.matches(name), requirement)
        return known

    def decide_uri(
        self, uri: str, requirement: Requirement = NOTHING_ASKED, *, spelled: str | None = None
    ) -> Decision:
        """For a resource; not remembered, since templates have URIs without end. What is no safe URI is hidden.

        `spelled` is the URI that the resource's template writes for what it read in `uri`: the same for all that its handler
        is told the same of, whatever a client encoded, added or put in another order.
        """
        return self._decide(self.matches_uri(uri, spelled), requirement)

    def matches(self, name: str) -> bool:
        """Whether the tenant's patterns let a name pass."""
        return self._allow.match(name) is not None and self._deny.match(name) is None

    def matches_uri(self, uri: str, spelled: str | None = None) -> bool:
        """Whether they let a URI pass: the canonical spelling must be allowed, encoded or plain, and none denied. A pattern
        that denies a URI denies it with a query and a fragment, and with slashes doubled, too."""
        try:
            canonical = canonical_uri(uri)
            if spelled is not None:
                canonical = canonical_uri(spelled)
        except UnsafeName:
            return False
        plain = unquote(canonical)
        if self._allow.match(canonical) is None and self._allow.match(plain) is None:
            return False
        spellings = {uri, canonical, plain}
        spellings |= {_QUERY_OR_FRAGMENT.split(text, 1)[0] for text in spellings}
        spellings |= {_DOUBLED.sub("/", text) for text in spellings}
        return not any(map(self._deny.match, spellings))

    def _decide(self, matched: bool, requirement: Requirement) -> Decision:
        if not matched or (requirement.kinds and self.key.kind not in requirement.kinds):
            return HIDDEN
        missing = requirement.scopes - self.key.scopes
        if not missing:
            return VISIBLE
        # A step up helps only to what the tenant itself was granted.
        return Decision("step-up", missing) if missing <= self.key.grantable else HIDDEN


class Views:
    """The views of one catalog, at most `views_max`; the one not used for longest goes first.

    `generation` rises whenever a View taken before must not be asked any more.
    """

    def __init__(self, views_max: int = VIEWS_MAX) -> None:
        self._views: OrderedDict[ViewKey, View] = OrderedDict()
        self._views_max = views_max
        self._asked: frozenset[str] = frozenset()
        self.generation = 0

    def __len__(self) -> int:
        return len(self._views)

    def catalog_changed(self, scopes_asked: Set[str]) -> None:
        """Tells which scopes any offer asks for. Others do not tell views apart: a scope per person makes no view per person."""
        self._asked = frozenset(scopes_asked)
        self._views.clear()  # decisions may be others now, too
        self.generation += 1

    def of(
        self,
        kind: Kind,
        allow: tuple[str, ...],
        deny: tuple[str, ...],
        granted: frozenset[str],
        scopes: frozenset[str],
    ) -> View:
        """The view of a principal with `scopes` within a tenant that was `granted` those; it never has more than its tenant."""
        grantable = granted & self._asked
        key = ViewKey(allow, deny, kind, scopes & grantable, grantable)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(key)
            if len(self._views) > self._views_max:
                self._views.popitem(last=False)
        else:
            self._views.move_to_end(key)
        return view


@lru_cache(PATTERNS_MAX)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all of them; without a pattern nothing matches."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")
