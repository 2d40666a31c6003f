"""Prompts and the completion of their arguments (sections 16 and 17)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from mcpfast import AssistantMessage, Audio, Context, Image, MCPServer, RegistrationError, UserMessage
from mcpfast.protocol.types import (
    Completion,
    EmbeddedResource,
    PromptReference,
    ResourceLink,
    TextResourceContents,
)
from tests.wire import REVISIONS, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("prompts", version="1", **options)

    @server.prompt
    def review(
        code: str, language: Annotated[str, msgspec.Meta(description="of the code", title="Lang")] = "python"
    ) -> str:
        """Reviews code.

        Args:
            code: what to look at
        """
        return f"Review this {language}: {code}"

    @server.prompt(
        name="talk", title="Talk", description="A conversation", icons=[{"src": "data:,x"}], meta={"m": 1}
    )
    async def conversation(ctx: Context, times: int = 1, loud: bool = False) -> list[Any]:
        said = "HELLO" if loud else "hello"
        return [
            said * times,
            AssistantMessage("hi"),
            UserMessage("bye"),
            {"role": "assistant", "content": ctx.request.method},
        ]

    @server.prompt
    async def everything() -> list[Any]:
        return [
            Image(data=b"png"),
            Audio(data=b"wav"),
            EmbeddedResource(resource=TextResourceContents(uri="x://y", text="z")),
            ResourceLink(uri="x://y", name="link"),
        ]

    @server.resource("files://{folder}/{name}")
    async def file(folder: str, name: str) -> str:
        return name

    @server.resource("files://fixed")
    async def fixed() -> str:
        return "x"

    return server


# ---------------------------------------------------------------------------------------------------- prompts


@all_revisions
def test_the_list(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            review, talk, everything = (await wire.request("prompts/list"))["prompts"]
            assert review["name"] == "review" and review["description"] == "Reviews code."
            code, language = review["arguments"]
            assert code == {"name": "code", "description": "what to look at", "required": True}
            assert language.pop("title", None) == ("Lang" if revision >= "2025-06-18" else None)
            assert language == {"name": "language", "description": "of the code"}
            assert [one["name"] for one in talk["arguments"]] == ["times", "loud"]
            assert ("title" in talk) is ("_meta" in talk) is (revision >= "2025-06-18")
            assert ("icons" in talk) is (revision >= "2025-11-25")
            assert everything == {"name": "everything"}

    run(scenario())


@all_revisions
@pytest.mark.parametrize("warm", [True, False])
def test_what_is_got(revision: str, warm: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, warm=warm) as wire:
            got = await wire.request("prompts/get", {"name": "review", "arguments": {"code": "x = 'é'"}})
            assert got["description"] == "Reviews code."
            assert got["messages"] == [
                {"role": "user", "content": {"type": "text", "text": "Review this python: x = 'é'"}}
            ]
            got = await wire.request(
                "prompts/get", {"name": "talk", "arguments": {"times": "2", "loud": "true"}}
            )
            assert got["description"] == "A conversation"
            assert [(one["role"], one["content"]["text"]) for one in got["messages"]] == [
                ("user", "HELLOHELLO"),
                ("assistant", "hi"),
                ("user", "bye"),
                ("assistant", "prompts/get"),
            ]
            for params in (
                {"name": "talk"},
                {"name": "talk", "arguments": {}},
                {"name": "talk", "arguments": None},
            ):
                assert (await wire.request("prompts/get", params))["messages"][0]["content"][
                    "text"
                ] == "hello"

    run(scenario())


@all_revisions
def test_blocks_of_every_kind(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            blocks = [
                one["content"]
                for one in (await wire.request("prompts/get", {"name": "everything"}))["messages"]
            ]
            link = "resource_link" if revision >= "2025-06-18" else "text"
            audio = "audio" if revision >= "2025-03-26" else "resource"
            assert [one["type"] for one in blocks] == ["image", audio, "resource", link]
            assert "x://y" in str(blocks[3])

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": 5},
        {"name": "nope"},
        {"name": "review"},
        {"name": "review", "arguments": {}},
        {"name": "review", "arguments": {"language": "c"}},
        {"name": "review", "arguments": {"code": 5}},
        {"name": "review", "arguments": {"code": None}},
        {"name": "review", "arguments": []},
        {"name": "review", "arguments": "code"},
        {"name": "talk", "arguments": {"times": "many"}},
        {"name": "talk", "arguments": {"loud": "perhaps"}},
    ],
)
def test_what_is_refused(revision: str, params: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            error = await wire.error("prompts/get", params)
            assert error["code"] == -32602
            if params.get("name") in ("nope", "review", "talk") and isinstance(
                params.get("arguments", {}), dict
            ):
                wrong = [
                    value for value in params.get("arguments", {}).values() if not isinstance(value, str)
                ]
                assert wrong or params["name"] in error["message"]
            assert (await wire.request("prompts/get", {"name": "talk"}))["messages"]

    run(scenario())


@all_revisions
def test_prompts_come_and_go(revision: str) -> None:
    async def added() -> str:
        return "x"

    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire:
            server.add_prompt(added)
            assert (await wire.request("prompts/get", {"name": "added"}))["messages"]
            assert len((await wire.request("prompts/list"))["prompts"]) == 4
            with pytest.raises(RegistrationError):
                server.add_prompt(added)
            server.remove_prompt("added")
            assert (await wire.error("prompts/get", {"name": "added"}))["code"] == -32602
            with pytest.raises(RegistrationError):
                server.remove_prompt("added")

    run(scenario())


# ---------------------------------------------------------------------------------------------------- completion


def completing(fn: Any = None) -> tuple[MCPServer[Any], list[Any]]:
    server, asked = make_server(), []

    async def complete(ref: Any, argument: Any, context: Any) -> Any:
        kind = "ref/prompt" if isinstance(ref, PromptReference) else "ref/resource"
        asked.append(
            (kind, ref.name if kind == "ref/prompt" else ref.uri, argument.name, argument.value, context)
        )
        return ["python", "pyret"]

    server.completion(fn or complete)
    return server, asked


def ask(ref: Any, **more: Any) -> dict[str, Any]:
    return {"ref": ref, "argument": {"name": "language", "value": "py"}, **more}


PROMPT = {"type": "ref/prompt", "name": "review"}


@all_revisions
def test_prompts_and_templates_are_completed(revision: str) -> None:
    async def scenario() -> None:
        server, asked = completing()
        async with connected(server, revision) as wire:
            for ref in (
                PROMPT,
                {**PROMPT, "title": "R"},
                {"type": "ref/resource", "uri": "files://{folder}/{name}"},
                {"type": "ref/resource", "uri": "files://a/b"},
                {"type": "ref/resource", "uri": "files://fixed"},
            ):
                assert await wire.request("completion/complete", ask(ref)) is not None
                assert asked[-1][0] == ref["type"] and asked[-1][1] in (ref.get("name"), ref.get("uri"))
                assert asked[-1][2:4] == ("language", "py") and asked[-1][4] is None
            result = await wire.request(
                "completion/complete", ask(PROMPT, context={"arguments": {"code": "x"}})
            )
            assert result["completion"] == {"values": ["python", "pyret"]}
            assert asked[-1][4].arguments == {"code": "x"}

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"values": []}),
        ([], {"values": []}),
        (("a", "b"), {"values": ["a", "b"]}),
        ("one", {"values": ["one"]}),
        (Completion(values=["a"], total=5, has_more=True), {"values": ["a"], "total": 5, "hasMore": True}),
        ([str(n) for n in range(100)], {"values": [str(n) for n in range(100)]}),
        (
            [str(n) for n in range(101)],
            {"values": [str(n) for n in range(100)], "total": 101, "hasMore": True},
        ),
        (Completion(values=["x"] * 150, total=900), {"values": ["x"] * 100, "total": 900, "hasMore": True}),
    ],
)
def test_what_a_completer_may_give(revision: str, given: Any, expected: dict[str, Any]) -> None:
    async def complete(ref: Any, argument: Any, context: Any) -> Any:
        return given

    async def scenario() -> None:
        async with connected(completing(complete)[0], revision) as wire:
            assert (await wire.request("completion/complete", ask(PROMPT)))["completion"] == expected

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "given", [5, [1], {"total": 1}, {"values": "ab"}, Completion(values=[None]), b"ab"], ids=repr
)
def test_what_a_completer_may_not_give(revision: str, given: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connected(completing(lambda ref, argument: given)[0], revision) as wire:
            error = await wire.error("completion/complete", ask(PROMPT))
            assert error["code"] == -32603 and "Incident" in error["message"]

    run(scenario())
    assert "a completer returns a list of str, a Completion or None, not " in caplog.text


@all_revisions
def test_completers_of_other_shapes(revision: str) -> None:
    def two(ref: Any, argument: Any) -> list[str]:
        return [argument.value]

    async def scenario() -> None:
        async with connected(completing(two)[0], revision) as wire:
            assert (await wire.request("completion/complete", ask(PROMPT)))["completion"]["values"] == ["py"]

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ref": PROMPT},
        {"argument": {"name": "x", "value": ""}},
        ask({"type": "ref/prompt", "name": "nope"}),
        ask({"type": "ref/prompt"}),
        ask({"type": "ref/resource", "uri": "nope://x"}),
        ask({"type": "ref/resource", "name": "review"}),
        ask({"type": "ref/tool", "name": "review"}),
        ask("review"),
        ask({**PROMPT, "name": 5}),
        {"ref": PROMPT, "argument": {"name": "x"}},
        {"ref": PROMPT, "argument": {"name": "x", "value": 5}},
        ask(PROMPT, context=[]),
        ask(PROMPT, context={"arguments": {"x": 1}}),
    ],
)
def test_what_completion_refuses(revision: str, params: dict[str, Any]) -> None:
    async def scenario() -> None:
        server, asked = completing()
        async with connected(server, revision) as wire:
            assert (await wire.error("completion/complete", params))["code"] == -32602
            assert asked == []

    run(scenario())
