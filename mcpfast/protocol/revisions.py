"""The table of protocol revisions: what exists in which one. A new revision is a new row, and the module of its era.

Source: the specification's changelogs, gathered in section 36 of the protocol notes ("what exists in which revision").
"""

from __future__ import annotations

from typing import NamedTuple


class Revision(NamedTuple):
    """One revision and what it knows. `number` orders them."""

    version: str
    number: int
    modern: bool  # every request carries its own envelope; False: a session is made by `initialize`
    batches: bool = False  # JSON-RPC arrays
    error_id_null: bool = (
        False  # an error that belongs to no request says `"id": null`; later ones leave it out
    )
    tool_annotations: bool = True
    audio: bool = True  # audio blocks, progress `message`, capability `completions`
    structured: bool = (
        True  # outputSchema, structuredContent, resource_link, title, `_meta` on things, lastModified
    )
    icons: bool = True  # icons, Implementation.description and .websiteUrl, modes and defaults of elicitation
    argument_errors_are_results: bool = True  # False: bad tool arguments are a -32602
    primes_streams: bool = True  # an HTTP event stream begins with an event that has an id and no data


A = Revision(
    "2024-11-05",
    0,
    modern=False,
    error_id_null=True,
    tool_annotations=False,
    audio=False,
    structured=False,
    icons=False,
    argument_errors_are_results=False,
    primes_streams=False,
)
B = A._replace(version="2025-03-26", number=1, batches=True, tool_annotations=True, audio=True)
C = B._replace(version="2025-06-18", number=2, batches=False, structured=True)
D = C._replace(
    version="2025-11-25",
    number=3,
    error_id_null=False,
    icons=True,
    argument_errors_are_results=True,
    primes_streams=True,
)
E = D._replace(version="2026-07-28", number=4, modern=True)

REVISIONS: tuple[Revision, ...] = (A, B, C, D, E)
BY_VERSION: dict[str, Revision] = {revision.version: revision for revision in REVISIONS}
LEGACY: tuple[Revision, ...] = tuple(revision for revision in REVISIONS if not revision.modern)
MODERN: tuple[Revision, ...] = tuple(revision for revision in REVISIONS if revision.modern)
MODERN_VERSIONS: tuple[str, ...] = tuple(revision.version for revision in reversed(MODERN))
LATEST_LEGACY: Revision = LEGACY[-1]
LATEST: Revision = REVISIONS[-1]

# The longest list of log levels, lowest first (all revisions).
LOG_LEVELS: tuple[str, ...] = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
LOG_LEVEL_INDEX: dict[str, int] = {level: index for index, level in enumerate(LOG_LEVELS)}
