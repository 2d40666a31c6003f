"""Docstrings of handlers: what is told about the tool, and about each argument. Imported when a list is asked for."""

from __future__ import annotations

import re
from inspect import cleandoc

# The line that starts the list of arguments, in the styles of Google, NumPy and Sphinx.
_ARGUMENTS = re.compile(
    r"^[ \t]*(?:(?:Args|Arguments|Params|Parameters|Keyword Args|Keyword Arguments):[ \t]*"
    r"|(?:Parameters|Other Parameters)[ \t]*\n[ \t]*-{3,}[ \t]*"
    r"|:(?:param|parameter|arg|argument|key|keyword)\b.*)$",
    re.MULTILINE,
)


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """The text before the list of arguments, and what the list says of each argument."""
    text = cleandoc(doc)
    start = _ARGUMENTS.search(text)
    if start is None:
        return text, {}
    from docstring_parser import ParseError, parse

    try:
        parsed = parse(text)
    except ParseError:
        return text, {}
    arguments = {one.arg_name: " ".join(one.description.split()) for one in parsed.params if one.description}
    return text[: start.start()].rstrip(), arguments
