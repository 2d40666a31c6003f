"""The API as users of the official SDK and of FastMCP write it: each idiom in a miniature, with only its imports changed.

pydantic is the users' choice: it is installed for these tests, and never imported by us.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest

from mcpfast import (
    AssistantMessage,
    Audio,
    BinaryResource,
    Client,
    Context,
    ElicitationResult,
    FileResource,
    FunctionResource,
    Icon,
    Image,
    MCPError,
    MCPServer,
    Message,
    TextResource,
    ToolError,
    ToolResult,
    UrlElicitationRequiredError,
    UserMessage,
    types,
)
from mcpfast.types import (
    INVALID_PARAMS,
    CallToolResult,
    ClientCapabilities,
    Completion,
    CompletionArgument,
    CompletionContext,
    ElicitationCapability,
    ElicitRequestURLParams,
    ElicitResult,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)

eras = pytest.mark.parametrize("mode", ["legacy", "auto"])


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def call(server: MCPServer, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
    """The result of one call, in memory."""
    results: list[Any] = []

    async def test() -> None:
        async with Client(server, **options) as client:
            results.append(await client.call_tool(tool, arguments or {}))

    run(test())
    return results[0]


# ---------------------------------------------------------------------------------------------- servers, tools


def test_a_server_takes_what_the_sdk_calls_it() -> None:
    icon = Icon(src="data:image/png;base64,AAAA", mime_type="image/png", sizes=["16x16"])
    mcp = MCPServer(
        "Demo",
        title="The Demo",
        description="Shows.",
        instructions="Be kind.",
        website_url="https://example.org",
        icons=[icon],
        version="1.2",
    )

    @mcp.tool(
        name="named",
        title="Named",
        description="From the decorator.",
        annotations=ToolAnnotations(read_only_hint=True),
        icons=[icon],
        meta={"a": 1},
        structured_output=False,
    )
    def other_name(a: int) -> int:
        """From the function."""
        return a

    @mcp.tool()
    def with_parentheses() -> str:
        return ""

    @mcp.tool
    def without() -> str:
        return ""

    mcp.add_tool(lambda: "anything", name="lambda", description="An expression.")
    assert other_name(3) == 3 and without() == ""  # the decorated function stays what it was

    async def test() -> None:
        async with Client(mcp) as client:
            info = client.server_info
            assert info is not None and info.icons == [icon]
            assert (info.name, info.title, info.version, info.website_url) == (
                "Demo",
                "The Demo",
                "1.2",
                "https://example.org",
            )
            assert client.instructions == "Be kind."
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(tools) == ["named", "with_parentheses", "without", "lambda"]
            named = tools["named"]
            assert (named.title, named.description, named.icons) == ("Named", "From the decorator.", [icon])
            assert named.annotations.read_only_hint is True and named.output_schema is None
            assert named.meta == {"a": 1}

    run(test())


class Shrimp(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(max_length=10)]


class Tank(pydantic.BaseModel):
    shrimps: list[Shrimp]
    size: int = pydantic.Field(default=1, ge=1, description="In litres")


def test_pydantic_models_and_fields_as_arguments() -> None:
    mcp = MCPServer("tank")

    @mcp.tool()
    def names(
        tank: Tank,
        extra: Annotated[list[str], pydantic.Field(max_length=2, description="Some more")],
        greeting: str = pydantic.Field(default="Hi", description="What to say first"),
    ) -> list[str]:
        """The names of all shrimps."""
        assert isinstance(tank, Tank) and isinstance(tank.shrimps[0], Shrimp)
        return [greeting, *(shrimp.name for shrimp in tank.shrimps), *extra]

    tank = {"shrimps": [{"name": "Ada"}]}
    result = call(mcp, "names", {"tank": tank, "extra": ["Bob"]})
    assert result.structured_content == {"result": ["Hi", "Ada", "Bob"]}
    assert call(mcp, "names", {"tank": {"shrimps": [{"name": "A" * 11}]}, "extra": []}).is_error
    assert call(mcp, "names", {"tank": tank, "extra": ["a", "b", "c"]}).is_error

    async def test() -> None:
        async with Client(mcp) as client:
            schema = (await client.list_tools()).tools[0].input_schema
            assert schema["required"] == ["tank", "extra"]
            assert schema["properties"]["extra"]["description"] == "Some more"
            assert (
                schema["properties"]["greeting"] | {"default": "Hi", "description": "What to say first"}
                == (schema["properties"]["greeting"])
            )

    run(test())


class Weather(pydantic.BaseModel):
    temperature: float = pydantic.Field(description="In Celsius")
    condition: str


class Place(TypedDict):
    latitude: float
    name: str


@dataclass
class Alert:
    severity: Literal["low", "high"]
    areas: list[str]


class Person:
    """An ordinary class with type hints."""

    name: str
    age: int

    def __init__(self, name: str, age: int) -> None:
        self.name, self.age = name, age


RETURNED: dict[str, tuple[Any, Any, Any]] = {
    "model": (Weather, Weather(temperature=7.5, condition="rain"), {"temperature": 7.5, "condition": "rain"}),
    "typed dict": (Place, {"latitude": 51.5, "name": "London"}, {"latitude": 51.5, "name": "London"}),
    "dataclass": (Alert, Alert("low", ["a"]), {"severity": "low", "areas": ["a"]}),
    "class": (Person, Person("Ada", 36), {"name": "Ada", "age": 36}),
    "dict": (dict[str, float], {"mean": 1.5}, {"mean": 1.5}),
    "list": (list[str], ["a", "b"], {"result": ["a", "b"]}),
    "models": (
        list[Weather],
        [Weather(temperature=1, condition="")],
        {"result": [{"temperature": 1, "condition": ""}]},
    ),
    "number": (float, 22.5, {"result": 22.5}),
    "text": (str, "text", {"result": "text"}),
    "nothing": (None, None, None),
}


@pytest.mark.parametrize(("annotation", "value", "structured"), RETURNED.values(), ids=RETURNED)
def test_what_a_tool_returns_comes_as_data_and_as_text(annotation: Any, value: Any, structured: Any) -> None:
    mcp = MCPServer("weather")

    def get() -> Any:
        return value

    get.__annotations__ = {"return": annotation}
    mcp.tool()(get)
    result = call(mcp, "get")
    assert not result.is_error
    assert result.structured_content == structured
    if structured is not None and "result" not in structured:
        assert json.loads(result.content[0].text) == structured


def test_a_tool_may_write_the_whole_result() -> None:
    mcp = MCPServer("whole")

    @mcp.tool()
    def direct() -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="seen")], meta={"hidden": 1})

    @mcp.tool()
    def checked() -> Annotated[CallToolResult, Weather]:
        return CallToolResult(
            content=[TextContent(type="text", text="seen")],
            structured_content={"temperature": 1.0, "condition": "dry"},
        )

    @mcp.tool
    def told_apart() -> ToolResult:
        return ToolResult(content="seen", structured_content={"n": 1}, meta={"hidden": 2})

    assert call(mcp, "direct").content[0].text == "seen"
    assert call(mcp, "direct").meta["hidden"] == 1
    assert call(mcp, "checked").structured_content == {"temperature": 1.0, "condition": "dry"}
    assert call(mcp, "told_apart").data == {"n": 1} and call(mcp, "told_apart").meta["hidden"] == 2


def test_images_and_audio(tmp_path: Path) -> None:
    mcp = MCPServer("media")
    (tmp_path / "dot.jpg").write_bytes(b"jpeg")

    @mcp.tool()
    def image() -> Image:
        return Image(data=b"png", format="png")

    @mcp.tool()
    def from_file() -> Image:
        return Image(path=tmp_path / "dot.jpg")

    @mcp.tool()
    def mixed() -> list[str | Image | Audio]:
        return ["look:", Image(data=b"png", format="png"), Audio(data=b"wav", format="wav")]

    (block,) = call(mcp, "image").content
    assert (block.type, block.mime_type, base64.b64decode(block.data)) == ("image", "image/png", b"png")
    assert call(mcp, "from_file").content[0].mime_type == "image/jpeg"
    assert [block.type for block in call(mcp, "mixed").content] == ["text", "image", "audio"]


def test_the_two_ways_to_fail() -> None:
    mcp = MCPServer("failing")

    @mcp.tool()
    def for_the_model() -> str:
        raise ToolError("The number is too big")

    @mcp.tool()
    def for_the_client() -> str:
        raise MCPError(code=INVALID_PARAMS, message="No such customer", data={"id": 7})

    @mcp.tool()
    def must_open() -> str:
        raise UrlElicitationRequiredError(
            [ElicitRequestURLParams(message="Sign in", url="https://example.org/", elicitation_id="e-1")]
        )

    @mcp.tool()
    def mistake() -> str:
        raise KeyError("secret")

    assert call(mcp, "for_the_model").content[0].text == "The number is too big"
    with pytest.raises(MCPError) as caught:
        call(mcp, "for_the_client")
    assert (caught.value.error.code, caught.value.error.message, caught.value.error.data) == (
        INVALID_PARAMS,
        "No such customer",
        {"id": 7},
    )
    with pytest.raises(MCPError) as caught:
        call(mcp, "must_open", mode="legacy")
    assert caught.value.code == -32042
    assert caught.value.data["elicitations"] == [
        {"mode": "url", "message": "Sign in", "url": "https://example.org/", "elicitationId": "e-1"}
    ]
    hidden, shown = call(mcp, "mistake"), call(mcp, "mistake", raise_exceptions=True)
    assert hidden.is_error and "secret" not in hidden.content[0].text
    assert shown.is_error and "KeyError: 'secret'" in shown.content[0].text


# ---------------------------------------------------------------------------------------------- context


@dataclass
class AppContext:
    name: str


@asynccontextmanager
async def lifespan(server: MCPServer[AppContext]) -> AsyncIterator[AppContext]:
    yield AppContext(server.name)


@eras
def test_the_lifespan_is_where_the_sdk_has_it(mode: str) -> None:
    mcp = MCPServer("shop", lifespan=lifespan)

    @mcp.tool()
    def one_type(ctx: Context[AppContext]) -> str:
        return ctx.request_context.lifespan_context.name

    def two_types(ctx: Any) -> str:
        return ctx.lifespan_context.name  # type: ignore[no-any-return]

    two_types.__annotations__["ctx"] = Context[AppContext, Any]  # type: ignore[misc]
    mcp.tool()(two_types)
    assert call(mcp, "one_type", mode=mode).data == "shop"
    assert call(mcp, "two_types", mode=mode).data == "shop"


@eras
def test_progress_and_log_messages(mode: str) -> None:
    mcp = MCPServer("slow")
    progress: list[Any] = []
    logs: list[Any] = []

    @mcp.tool()
    async def work(steps: int, ctx: Context) -> str:
        await ctx.info("begun")
        await ctx.debug("not wanted")
        for i in range(steps):
            await ctx.report_progress(progress=i + 1, total=steps, message=f"step {i + 1}")
        await ctx.log("warning", "done", logger_name="work")
        await ctx.session.send_log_message("error", {"really": "done"})
        return ctx.request_id

    async def test() -> None:
        async with Client(mcp, mode=mode, logging_callback=logs.append, log_level="info") as client:
            result = await client.call_tool(
                "work", {"steps": 2}, progress_callback=lambda *told: progress.append(told)
            )
            assert isinstance(result.data, str)

    run(test())
    assert progress == [(1, 2, "step 1"), (2, 2, "step 2")]
    assert [(log.level, log.data) for log in logs] == [
        ("info", "begun"),
        ("warning", "done"),
        ("error", {"really": "done"}),
    ]


@eras
def test_a_tool_reads_the_resources_of_its_server(mode: str) -> None:
    mcp = MCPServer("shop")

    @mcp.resource("data://{kind}")
    def data(kind: str) -> str | bytes:
        return "text" if kind == "text" else b"\x00\x01"

    @mcp.tool()
    async def read(ctx: Context) -> list[str]:
        (text,) = await ctx.read_resource("data://text")
        (blob,) = await ctx.read_resource("data://blob")
        assert blob.content == b"\x00\x01" and blob.mime_type == "application/octet-stream"
        assert text.text == text.content
        with pytest.raises(TypeError, match="is binary"):
            _ = blob.text
        return [str(text.content), str(text.mime_type), text.uri]

    assert call(mcp, "read", mode=mode).data == ["text", "text/plain", "data://text"]


class Booking(pydantic.BaseModel):
    again: bool = pydantic.Field(description="Try another date?")
    date: str = pydantic.Field(default="2024-12-26", description="YYYY-MM-DD")


@eras
@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
def test_elicitation_with_a_pydantic_model(mode: str, action: Literal["accept", "decline", "cancel"]) -> None:
    mcp = MCPServer("bistro")

    @mcp.tool()
    async def book(ctx: Context) -> str:
        result: ElicitationResult[Any] = await ctx.elicit(message="Full. Another date?", schema=Booking)
        match result.action:
            case "accept":
                assert isinstance(result.data, Booking)
                return result.data.date
            case other:
                return other

    async def answer(context: Any, params: Any) -> ElicitResult:
        assert params.requested_schema["properties"]["again"]["description"] == "Try another date?"
        assert context.session is context.client
        return ElicitResult(action=action, content={"again": True} if action == "accept" else None)

    result = call(mcp, "book", mode=mode, elicitation_callback=answer)
    assert result.data == {"accept": "2024-12-26"}.get(action, action)


@eras
def test_elicitation_as_fastmcp_writes_it(mode: str) -> None:
    mcp = MCPServer("survey")

    @mcp.tool
    async def survey(ctx: Context) -> str:
        name = await ctx.elicit("What is your name?", response_type=str)
        size = await ctx.elicit("Which size?", response_type=["small", "large"])
        return f"{name.data} {size.data}" if name.action == size.action == "accept" else "skipped"

    answers = iter(["Ada", "large"])
    result = call(mcp, "survey", mode=mode, elicitation_callback=lambda *_: next(answers))
    assert result.data == "Ada large"


@eras
def test_what_stands_in_ctx_session(mode: str) -> None:
    mcp = MCPServer("session")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    @mcp.tool()
    async def ask(ctx: Context) -> list[Any]:
        said = await ctx.session.create_message(
            messages=[SamplingMessage(role="user", content=TextContent(type="text", text="Say it"))],
            max_tokens=9,
        )
        form = await ctx.session.elicit_form("How many?", schema)
        page = await ctx.session.elicit_url("Look", "https://example.org/", "e-1")
        roots = await ctx.session.list_roots()
        wanted = ClientCapabilities(elicitation=ElicitationCapability())
        assert ctx.session.check_client_capability(wanted)
        assert not ctx.session.check_client_capability({"extensions": {"some": {}}})
        assert isinstance(said.content, TextContent) and form.content is not None
        return [said.content.text, form.content["n"], page.action, roots.roots[0].uri]

    result = call(
        mcp,
        "ask",
        mode=mode,
        sampling_callback=lambda context, params: "said " + params.messages[0].content.text,
        elicitation_callback=lambda context, params: ElicitResult(
            action="accept", content={"n": 3} if params.mode == "form" else None
        ),
        roots=[types.Root(uri="file:///srv", name="srv")],
    )
    assert result.data == ["said Say it", 3, "accept", "file:///srv"]


def test_roots_may_be_urls_of_pydantic() -> None:
    mcp = MCPServer("roots")

    @mcp.tool()
    async def roots(ctx: Context) -> list[str]:
        return [f"{root.name} {root.uri}" for root in await ctx.list_roots()]

    class Root(pydantic.BaseModel):
        uri: pydantic.FileUrl
        name: str | None = None

    given = [Root(uri=pydantic.FileUrl("file:///srv"), name="srv"), Root(uri=pydantic.FileUrl("file:///tmp"))]
    assert call(mcp, "roots", list_roots_callback=lambda context: given).data == [
        "srv file:///srv",
        "None file:///tmp",
    ]


@eras
def test_changes_are_told_by_the_context_and_by_the_session(mode: str) -> None:
    mcp = MCPServer("board")
    told: list[str] = []

    @mcp.resource("board://{name}")
    def board(name: str) -> str:
        return name

    @mcp.tool()
    async def change(ctx: Context) -> str:
        for tell in (ctx.notify_tools_changed, ctx.notify_prompts_changed, ctx.notify_resources_changed):
            await tell()
        await ctx.notify_resource_updated("board://a")
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_prompt_list_changed()
        await ctx.session.send_resource_list_changed()
        await ctx.session.send_resource_updated("board://a")
        return "changed"

    async def test() -> None:
        async with Client(
            mcp, mode=mode, message_handler=lambda message: told.append(type(message).__name__)
        ) as client:
            if mode == "legacy":
                await client.session.subscribe_resource("board://a")
                await client.call_tool("change")
                while len(told) < 5:
                    await asyncio.sleep(0.001)
                return
            async with client.listen(
                tools_list_changed=True,
                prompts_list_changed=True,
                resources_list_changed=True,
                resource_subscriptions=["board://a"],
            ) as events:
                await client.call_tool("change")
                told.extend([type(await anext(events)).__name__ for _ in range(4)])

    run(test())
    kinds = {name.removesuffix("Notification").replace("ToolList", "ToolsList") for name in told}
    assert {
        kind.replace("PromptList", "PromptsList").replace("ResourceList", "ResourcesList") for kind in kinds
    } == {
        "ToolsListChanged",
        "PromptsListChanged",
        "ResourcesListChanged",
        "ResourceUpdated",
    }


# ---------------------------------------------------------------------------------------------- resources, prompts


def test_resources_that_are_objects(tmp_path: Path) -> None:
    mcp = MCPServer("files")
    (tmp_path / "a.txt").write_text("from a file")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    mcp.add_resource(TextResource(uri="note://text", name="text", text="a text", title="A Text"))
    mcp.add_resource(BinaryResource("note://bytes", data=b"\x00"))
    mcp.add_resource(FileResource(uri="note://file", path=tmp_path / "a.txt"))
    mcp.add_resource(FileResource(uri="note://png", path=tmp_path / "a.png", mime_type="image/png"))

    def now() -> str:
        return "made now"

    mcp.add_resource(FunctionResource(uri="note://function", fn=now, mime_type="text/x-now"))
    with pytest.raises(ValueError, match="must be an absolute path"):
        FileResource(uri="note://file", path="a.txt")
    with pytest.raises(ValueError, match="needs the function behind the URI"):
        mcp.add_resource("note://alone")

    async def test() -> None:
        async with Client(mcp) as client:
            listed = {one.uri: one for one in (await client.list_resources()).resources}
            assert (listed["note://text"].name, listed["note://text"].title) == ("text", "A Text")
            assert listed["note://function"].name == "now"
            read = {}
            for uri in listed:
                (content,) = (await client.read_resource(uri)).contents
                read[uri] = (
                    content.mime_type,
                    getattr(content, "text", None) or base64.b64decode(content.blob),
                )
            assert read == {
                "note://text": ("text/plain", "a text"),
                "note://bytes": ("application/octet-stream", b"\x00"),
                "note://file": ("text/plain", "from a file"),
                "note://png": ("image/png", b"\x89PNG"),
                "note://function": ("text/x-now", "made now"),
            }

    run(test())


@eras
def test_prompts_and_their_messages(mode: str) -> None:
    mcp = MCPServer("prompts")

    @mcp.prompt(title="Review")
    def review(code: str) -> str:
        """Ask for a review."""
        return f"Review {code}"

    @mcp.prompt("debug")
    def debug_error(error: str, depth: int = 1) -> list[Message]:
        return [UserMessage("I see this:"), UserMessage(error * depth), AssistantMessage("What did you try?")]

    @mcp.prompt
    async def mixed() -> list[Any]:
        return ["plain", {"role": "assistant", "content": "as a dict"}]

    async def test() -> None:
        async with Client(mcp, mode=mode) as client:
            listed = {one.name: one for one in (await client.list_prompts()).prompts}
            assert listed["review"].title == "Review" and listed["review"].description == "Ask for a review."
            assert [(one.name, bool(one.required)) for one in listed["debug"].arguments] == [
                ("error", True),
                ("depth", False),
            ]
            result = await client.get_prompt("debug", {"error": "E", "depth": "2"})
            assert [(one.role, one.content.text) for one in result.messages] == [
                ("user", "I see this:"),
                ("user", "EE"),
                ("assistant", "What did you try?"),
            ]
            assert [one.content.text for one in (await client.get_prompt("mixed")).messages] == [
                "plain",
                "as a dict",
            ]

    run(test())


@eras
def test_completion_as_the_sdk_writes_it(mode: str) -> None:
    mcp = MCPServer("completes")

    @mcp.resource("repo://{owner}/{name}")
    def repo(owner: str, name: str) -> str:
        return f"{owner}/{name}"

    @mcp.prompt()
    def review(language: str) -> str:
        return language

    @mcp.completion()
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if isinstance(ref, PromptReference) and argument.name == "language":
            known = ["python", "pascal", "rust"]
            return Completion(values=[one for one in known if one.startswith(argument.value)], has_more=False)
        if isinstance(ref, ResourceTemplateReference) and context and context.arguments:
            return Completion(values=[f"{context.arguments['owner']}s-repo"])
        return None

    async def test() -> None:
        async with Client(mcp, mode=mode) as client:
            found = await client.complete(
                PromptReference(name="review"), argument={"name": "language", "value": "p"}
            )
            assert found.completion.values == ["python", "pascal"] and found.completion.has_more is False
            template = ResourceTemplateReference(uri="repo://{owner}/{name}")
            found = await client.complete(
                template, {"name": "name", "value": ""}, context_arguments={"owner": "ada"}
            )
            assert found.completion.values == ["adas-repo"]
            assert (await client.complete(template, {"name": "name", "value": ""})).completion.values == []

    run(test())


def test_every_name_of_the_front_door_can_be_imported() -> None:
    import mcpfast

    assert {name for name in mcpfast.__all__ if getattr(mcpfast, name, None) is None} == set()
    assert set(mcpfast.__all__) == set(mcpfast._HOME) | {"types"}
    assert mcpfast.types.TextContent is TextContent


def test_so_can_those_of_tenancy() -> None:
    from mcpfast import tenancy

    assert {name for name in tenancy.__all__ if getattr(tenancy, name, None) is None} == set()
    assert set(tenancy.__all__) == set(tenancy._HOME) <= set(dir(tenancy))
    with pytest.raises(AttributeError, match="has no attribute 'Tenants'"):
        tenancy.Tenants  # noqa: B018
