"""The server that the official conformance suite drives: every tool, resource and prompt that it calls, Tasks apart.

    python tests/conformance/server.py                                        http://127.0.0.1:8000/mcp
    python tests/conformance/server.py --listen http://127.0.0.1:9000 --session-mode sealed
    python tests/conformance/server.py --listen http://127.0.0.1:9000 --asgi  the same under uvicorn
    python tests/conformance/server.py --listen stdio

Names, schemas and answers are what the suite's scenarios want (`make conformance` runs them); the rest is what any server
would write. A handler that asks is one for both eras: an older client is sent a request, a 2026-07-28 client gets the
questions as its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import struct
import wave
import zlib
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from mcpfast import Audio, Context, Image, MCPServer, TextResource, ToolError, UserMessage
from mcpfast.types import (
    Completion,
    CompletionArgument,
    ContentBlock,
    EmbeddedResource,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

STEP_S = 0.05  # between two notifications, so that a client can see them come one by one
AWAY_S = 0.2  # how long test_reconnection works on while its stream is closed

server = MCPServer(
    "mcpfast-conformance", version="1.0", instructions="Made for the official conformance suite."
)


def png() -> bytes:
    "One red pixel."

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav() -> bytes:
    "A hundredth of a second of silence."
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 80)
    return written.getvalue()


def embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


# ---------------------------------------------------------------------------------------------- what a tool can give


@server.tool
async def test_simple_text() -> str:
    "One block of text."
    return "A simple text."


@server.tool
async def test_image_content() -> Image:
    "One image."
    return Image(data=png(), format="png")


@server.tool
async def test_audio_content() -> Audio:
    "One sound."
    return Audio(data=wav(), format="wav")


@server.tool
async def test_embedded_resource() -> EmbeddedResource:
    "One resource, embedded."
    return embedded("test://embedded-resource", "What is embedded.")


@server.tool
async def test_multiple_content_types() -> list[ContentBlock | Image]:
    "A text, an image and a resource in one result."
    return [
        TextContent(text="Three blocks:"),
        Image(data=png(), format="png"),
        embedded("test://mixed-content-resource", '{"mixed": true}', "application/json"),
    ]


@server.tool
async def test_error_handling() -> str:
    "Fails, always."
    raise ToolError("This tool fails on purpose")


# ---------------------------------------------------------------------------------------------- while it runs


@server.tool
async def test_tool_with_logging(ctx: Context) -> str:
    "Three log messages, a moment apart."
    await ctx.info("Tool execution started")
    await asyncio.sleep(STEP_S)
    await ctx.info("Tool processing data")
    await asyncio.sleep(STEP_S)
    await ctx.info("Tool execution completed")
    return "Logged three times"


@server.tool
async def test_logging_tool(ctx: Context) -> str:
    "One log message, where the request asks for any."
    await ctx.info("Logged")
    return "Logged once, if that was wanted"


@server.tool
async def test_tool_with_progress(ctx: Context) -> str:
    "Three reports of progress, a moment apart."
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(STEP_S)
    return "Reported three times"


@server.tool
async def test_reconnection(ctx: Context) -> str:
    "Closes the stream of this very call; the client comes back for the result with Last-Event-ID."
    await ctx.info("Before the stream is closed")
    await ctx.close_sse_stream()
    await asyncio.sleep(AWAY_S)
    await ctx.info("After the client was told to come back")
    return "Reconnected"


# ---------------------------------------------------------------------------------------------- asking


class Contact(msgspec.Struct):
    "What test_elicitation asks for."

    username: Annotated[str, msgspec.Meta(description="Your name")]
    email: Annotated[str, msgspec.Meta(description="Your mail address")]


class Defaults(msgspec.Struct):
    "A default for every primitive type (SEP-1034)."

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


TITLED = [{"const": f"value{i}", "title": f"Choice {i}"} for i in (1, 2, 3)]
ENUMS: dict[str, Any] = {  # the five ways to write a choice (SEP-1330)
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option 1", "Option 2", "Option 3"],
        },
        "untitledMulti": {
            "type": "array",
            "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
        },
        "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
    },
}


def told(answer: Any) -> str:
    "What the user did with a form, as text."
    content = msgspec.json.encode(answer.data).decode() if answer.action == "accept" else "{}"
    return f"action={answer.action}, content={content}"


@server.tool
async def test_sampling(prompt: str, ctx: Context) -> str:
    "Asks the client's model."
    answer = await ctx.sample(prompt, max_tokens=100)
    return f"LLM response: {answer.content.text}"


@server.tool
async def test_elicitation(message: str, ctx: Context) -> str:
    "Asks the user who they are."
    return f"User response: {told(await ctx.elicit(message, Contact))}"


@server.tool
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    "Asks by a form whose fields have defaults."
    return f"Elicitation completed: {told(await ctx.elicit('Please check these', Defaults))}"


@server.tool
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    "Asks by a form of choices, written in five ways."
    return f"Elicitation completed: {told(await ctx.elicit('Please choose', ENUMS))}"


@server.tool
async def test_streaming_elicitation(ctx: Context) -> str:
    "Reports progress, and asks; a 2026-07-28 client must find no request on the stream."
    await ctx.report_progress(1, 2, "about to ask")
    return told(await ctx.elicit("Shall this go on?", Confirmation, key="confirm"))


@server.tool
async def test_missing_capability(ctx: Context) -> str:
    "Needs a client that samples; one of 2026-07-28 that does not is told so by -32021."
    answer = await ctx.sample("Say hello", max_tokens=50, key="sample")
    return f"LLM response: {answer.content.text}"


# ---------------------------------------------------------------------------------------------- asking in rounds


class Name(msgspec.Struct):
    name: str


class Colour(msgspec.Struct):
    color: str


class Confirmation(msgspec.Struct):
    ok: bool


class Background(msgspec.Struct):
    context: str


def name_of(answer: Any) -> str:
    return answer.data.name if answer.action == "accept" else "stranger"


@server.tool
async def test_input_required_result_elicitation(ctx: Context) -> str:
    "Asks for a name."
    return f"Hello, {name_of(await ctx.elicit('What is your name?', Name, key='user_name'))}!"


@server.tool
async def test_input_required_result_sampling(ctx: Context) -> str:
    "Asks the client's model."
    answer = await ctx.sample("What is the capital of France?", max_tokens=100, key="capital_question")
    return f"The model says: {answer.content.text}"


@server.tool
async def test_input_required_result_list_roots(ctx: Context) -> str:
    "Asks for the client's roots."
    roots = await ctx.list_roots(key="client_roots")
    return f"Roots: {', '.join(root.uri for root in roots)}"


@server.tool("test_input_required_result_request_state")
@server.tool("test_input_required_result_tampered_state")
async def confirm(ctx: Context) -> str:
    "Asks to confirm. It gets to its end only with the state that it gave; another one is answered with -32602."
    return f"state-ok, {told(await ctx.elicit('Please confirm', Confirmation, key='confirm'))}"


@server.tool
async def test_input_required_result_multiple_inputs(ctx: Context) -> str:
    "Asks three things of three kinds in one round."
    name, greeting, roots = await ctx.gather(
        ctx.elicit("What is your name?", Name, key="user_name"),
        ctx.sample("Generate a greeting", max_tokens=50, key="greeting"),
        ctx.list_roots(key="client_roots"),
    )
    return f"{greeting.content.text} {name_of(name)}, {len(roots)} roots"


@server.tool
async def test_input_required_result_multi_round(ctx: Context) -> str:
    "Asks twice, one after the other."
    name = await ctx.elicit("Step 1: What is your name?", Name, key="step1")
    colour = await ctx.elicit("Step 2: What is your favorite color?", Colour, key="step2")
    return f"{name_of(name)} likes {colour.data.color if colour.action == 'accept' else 'no color'}"


@server.tool
async def test_input_required_result_capabilities(ctx: Context) -> str:
    "Asks everything that this client declared, and nothing else."
    questions: list[Any] = []
    if "sampling" in ctx.client_capabilities:
        questions.append(ctx.sample("Say hello", max_tokens=50, key="sample"))
    if "elicitation" in ctx.client_capabilities:
        questions.append(ctx.elicit("What is your name?", Name, key="ask"))
    return f"{len(await ctx.gather(*questions))} answers"


# ---------------------------------------------------------------------------------------------- schemas


@server.tool
async def test_x_mcp_header(
    region: Annotated[
        str, msgspec.Meta(description="Where to look", extra_json_schema={"x-mcp-header": "Region"})
    ] = "",  # noqa: PT028 - no test
) -> str:
    "Its argument stands in the header Mcp-Param-Region, too, and both must agree."
    return f"region={region}"


JSON_SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@server.tool(input_schema=JSON_SCHEMA_2020_12)
async def json_schema_2020_12_tool(**arguments: Any) -> str:
    "Its input schema is listed as it stands above, and validated."
    return json.dumps(arguments, sort_keys=True)


# ---------------------------------------------------------------------------------------------- changes


async def passing() -> str:
    "Here for a moment, so that the list changes."
    return "passing"


@server.tool
async def test_trigger_tool_change() -> str:
    "Changes the tools; who listens is told."
    server.add_tool(passing)
    server.remove_tool("passing")
    return "The tools have changed"


@server.tool
async def test_trigger_prompt_change() -> str:
    "Changes the prompts; who listens is told."
    server.add_prompt(passing)
    server.remove_prompt("passing")
    return "The prompts have changed"


# ---------------------------------------------------------------------------------------------- resources


@server.resource("test://static-text", mime_type="text/plain")
async def static_text() -> str:
    "A text."
    return "The content of the static text."


@server.resource("test://static-binary", mime_type="image/png")
async def static_binary() -> bytes:
    "An image."
    return png()


@server.resource("test://template/{id}/data", mime_type="application/json")
async def template(id: str) -> dict[str, Any]:
    "Data of any id."
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


server.add_resource(
    TextResource(
        "test://watched-resource",
        "What is watched.",
        name="watched",
        description="To be subscribed to.",
        mime_type="text/plain",
    )
)


# ---------------------------------------------------------------------------------------------- prompts, completion


@server.prompt
async def test_simple_prompt() -> str:
    "One message without arguments."
    return "A simple prompt."


@server.prompt
async def test_prompt_with_arguments(
    arg1: Annotated[str, msgspec.Meta(description="the first")],
    arg2: Annotated[str, msgspec.Meta(description="the second")],
) -> str:
    "Two arguments, and both in the text."
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt
async def test_prompt_with_embedded_resource(
    resourceUri: Annotated[str, msgspec.Meta(description="what to embed")],  # noqa: N803 - a name on the wire
) -> list[UserMessage]:
    "A resource, and what to do with it."
    return [
        UserMessage(embedded(resourceUri, "What is embedded.")),
        UserMessage("Please process the embedded resource above."),
    ]


@server.prompt
async def test_prompt_with_image() -> list[UserMessage]:
    "An image, and what to do with it."
    return [UserMessage(Image(data=png(), format="png")), UserMessage("Please analyze the image above.")]


@server.prompt
async def test_input_required_result_prompt(ctx: Context) -> str:
    "Asks before it gives its message."
    answer = await ctx.elicit("What context should the prompt use?", Background, key="user_context")
    return f"Use this context: {answer.data.context if answer.action == 'accept' else 'none'}"


@server.completion
async def complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: object
) -> Completion:
    "Something for every argument."
    values = [word for word in ("test", "testValue1", "testValue2") if word.startswith(argument.value)]
    return Completion(values=values, total=len(values), has_more=False)


# ---------------------------------------------------------------------------------------------- serving


def main() -> None:
    parser = argparse.ArgumentParser(description="The fixture of `make conformance`.")
    parser.add_argument(
        "--listen",
        default="http://127.0.0.1:8000",
        metavar="ADDRESS",
        help="stdio, tcp://HOST:PORT, unix:///PATH or http://HOST:PORT (default: %(default)s)",
    )
    parser.add_argument(
        "--session-mode",
        choices=("stateful", "sealed", "off"),
        help="how sessions of older clients are kept, over HTTP",
    )
    parser.add_argument("--asgi", action="store_true", help="serve the ASGI application under uvicorn")
    options = parser.parse_args()
    settings = {} if options.session_mode is None else {"session_mode": options.session_mode}
    if options.asgi:
        import uvicorn

        where = urlsplit(options.listen)
        uvicorn.run(server.asgi_app(**settings), host=where.hostname, port=where.port, log_level="warning")
    else:
        server.run(options.listen, **settings)


if __name__ == "__main__":
    main()
