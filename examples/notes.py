"""Notes: resources, templates, completion, and clients that are told when a note changes.

mcpfast call examples/notes.py write '{"name": "milk", "text": "two bottles"}'
"""

from mcpfast import Context, MCPServer, ResourceNotFound
from mcpfast.types import Completion, CompletionArgument, PromptReference, ResourceTemplateReference

server = MCPServer(
    "notes", version="1.0", instructions="Read a note as notes:///NAME, write one with `write`."
)
notes = {"welcome": "Write something down."}


@server.resource("notes:///", mime_type="application/json")
async def index() -> list[str]:
    "The names of all notes."
    return sorted(notes)


@server.resource("notes:///{name}", mime_type="text/plain")
async def note(name: str) -> str:
    "One note."
    if name not in notes:
        raise ResourceNotFound(f"notes:///{name}")
    return notes[name]


@server.tool
async def write(name: str, text: str, ctx: Context) -> str:
    """Write a note, or write it anew.

    Args:
        name: what to find it by
        text: what it says
    """
    is_new = name not in notes
    notes[name] = text
    await ctx.notify_resource_updated(f"notes:///{name}")  # who subscribed to this note is told
    if is_new:
        await ctx.notify_resource_updated("notes:///")
    return "written" if is_new else "written anew"


@server.prompt
async def summarize(name: str) -> str:
    "Ask for a summary of a note."
    return f"Summarize this note in one sentence:\n\n{notes[name]}"


@server.completion
async def complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: object
) -> Completion:
    "Names of notes, for the template and for the prompt."
    return Completion(values=[name for name in sorted(notes) if name.startswith(argument.value)])


if __name__ == "__main__":
    server.run()
